//! What users type.

use leanserve_tests::{Running, services};

use crate::prepare;

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_explains_lists_and_waits() {
    let (installation, scope, _) = prepare("kubectl").await;
    let namespace = scope.name().to_owned();
    let kubectl = async |arguments: &[&str]| installation.plane.kubectl_stdout(arguments).await.expect("kubectl");

    let explained = kubectl(&["explain", "inferenceservice.spec.predictor.model"]).await;
    for text in ["modelFormat", "storageUri", "DESCRIPTION:", "FIELDS:"] {
        assert!(explained.contains(text), "{text} is not in:\n{explained}");
    }
    assert!(
        !explained.contains("<empty>"),
        "a field without description:\n{explained}"
    );
    let deep = kubectl(&[
        "explain",
        "inferenceservice.spec.predictor.model.env.valueFrom.secretKeyRef",
    ])
    .await;
    assert!(deep.contains("optional"), "{deep}");

    let _running = Running::in_scope(&scope, &[]).await.expect("an operator");
    installation
        .plane
        .apply_yaml(&services::custom("m", &namespace).to_string())
        .await
        .expect("applied");
    let waited = kubectl(&[
        "wait",
        "--for=condition=Ready",
        "isvc/m",
        "-n",
        &namespace,
        "--timeout=120s",
    ])
    .await;
    assert!(waited.contains("condition met"), "{waited}");

    let listed = kubectl(&["get", "isvc", "-n", &namespace]).await;
    let mut lines = listed.lines();
    let columns: Vec<&str> = lines.next().expect("a header").split_whitespace().collect();
    assert_eq!(
        columns,
        [
            "NAME",
            "URL",
            "READY",
            "PREV",
            "LATEST",
            "PREVROLLEDOUTREVISION",
            "LATESTREADYREVISION",
            "AGE"
        ]
    );
    let row: Vec<&str> = lines.next().expect("a row").split_whitespace().collect();
    assert_eq!(row[..3], ["m", &format!("http://m-{namespace}.example.com"), "True"]);

    let events = kubectl(&[
        "get",
        "events",
        "-n",
        &namespace,
        "--field-selector",
        "reason=InferenceServiceReady",
    ])
    .await;
    assert!(events.contains("InferenceService [m] is Ready"), "{events}");
}
