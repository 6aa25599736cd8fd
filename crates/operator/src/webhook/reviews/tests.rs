use std::{pin::Pin, task};

use futures::{StreamExt, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use kube::{Client, client::Body as KubeBody};
use kube_secret_access::{FnAccess, ReadError, SecretRef, SecretSnapshot};
use memory_guard::Level;
use serde_json::{Value, json};
use tower::{BoxError, service_fn};

use super::*;
use crate::{
    service_accounts::ServiceAccounts,
    webhook::{gate, limits::Limits},
};

const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";

/// Of an API server with the `ServiceAccounts` `loader`, which lists nothing, and `crowded`, which lists 70 Secrets; with
/// these, and with Secrets `s3` and `broken`.
fn reviews(action: EnforcementAction, permits: usize, waiting: usize) -> Arc<Reviews> {
    let metrics = Arc::new(WebhookMetrics::new());
    let limits = Limits {
        permits,
        waiting,
        ..Limits::of(Some(64 << 20), 1, None)
    };
    let secrets = FnAccess::new(|secret: &SecretRef| {
        assert_eq!(secret.namespace(), "n", "another namespace is never read");
        match secret.name() {
            "s3" => {
                let snapshot = SecretSnapshot::builder(secret.clone()).data("token", b"planted".to_vec());
                Ok(Arc::new(snapshot.build()))
            }
            "broken" => Err(ReadError::Timeout {
                secret: secret.clone(),
                deadline: Duration::from_secs(1),
            }),
            listed if listed.starts_with("listed-") => Ok(Arc::new(SecretSnapshot::builder(secret.clone()).build())),
            _ => Err(ReadError::NotFound { secret: secret.clone() }),
        }
    });
    let api = service_fn(|request: Request<KubeBody>| async move {
        let (code, body) = match request.uri().path() {
            "/api/v1/namespaces/n/serviceaccounts/loader" => (StatusCode::OK, account("loader", 0)),
            "/api/v1/namespaces/n/serviceaccounts/crowded" => (StatusCode::OK, account("crowded", 70)),
            _ => (StatusCode::NOT_FOUND, String::new()),
        };
        let body = KubeBody::from(body.into_bytes());
        Ok::<_, BoxError>(Response::builder().status(code).body(body)?)
    });
    let accounts = ServiceAccounts::new(
        Client::new(api, "default"),
        Duration::from_secs(10),
        Arc::clone(&metrics.accounts),
    );
    Arc::new(Reviews {
        gate: Arc::new(Gate::new(&limits, Arc::clone(&metrics))),
        checker: Checker {
            secrets: Arc::new(secrets),
            accounts,
        },
        platform: Arc::new(PlatformSettings::new("kserve".to_owned())),
        action,
        max_wait: Duration::from_secs(30),
        metrics,
    })
}

/// A `ServiceAccount` that lists so many Secrets.
fn account(name: &str, secrets: usize) -> String {
    let secrets = (0..secrets).map(|number| json!({"name": format!("listed-{number:02}")}));
    let secrets: Value = secrets.collect();
    json!({"metadata": {"name": name, "namespace": "n"}, "secrets": secrets}).to_string()
}

fn service(secret: &str, key: &str) -> Value {
    json!({"metadata": {"name": "m"}, "spec": {"predictor": {
        "serviceAccountName": "loader",
        "model": {"storageUri": "pvc://claim/m", "env": [
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}},
        ]},
    }}})
}

fn body(object: &Value) -> Vec<u8> {
    // As the API server writes it.
    let object = object.to_string();
    format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"{UID}","kind":{{"group":"serving.kserve.io","version":"v1beta1","kind":"InferenceService"}},"namespace":"n","operation":"CREATE","object":{object}}}}}"#
    )
    .into_bytes()
}

fn request(body: Vec<u8>) -> Request<Full<Bytes>> {
    Request::post(format!("{PATH}?timeout=5s"))
        .header(header::CONTENT_LENGTH, body.len())
        .body(Full::new(Bytes::from(body)))
        .expect("valid")
}

async fn answered(response: Response<Full<Bytes>>) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("it is there").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn answer(reviews: &Reviews, object: &Value) -> Value {
    let (status, answer) = answered(reviews.answer(request(body(object))).await).await;
    assert_eq!((status, &answer["response"]["uid"]), (200, &json!(UID)));
    assert!(!answer.to_string().contains("planted"));
    answer["response"].clone()
}

#[tokio::test]
async fn what_is_missing_is_warned_of_or_refused() {
    use EnforcementAction::{Deny, Warn};
    for (secret, key, action, allowed, text) in [
        ("s3", "token", Warn, true, ""),
        ("s3", "token", Deny, true, ""),
        (
            "s3",
            "other",
            Warn,
            true,
            "Secret n/s3 has no key other (env TOKEN of container",
        ),
        (
            "s3",
            "other",
            Deny,
            false,
            "Secret n/s3 has no key other (env TOKEN of container",
        ),
        ("absent", "token", Warn, true, "Secret n/absent not found"),
        ("absent", "token", Deny, false, "Secret n/absent not found"),
        (
            "broken",
            "token",
            Warn,
            true,
            "were not checked: the API server did not answer",
        ),
        (
            "broken",
            "token",
            Deny,
            false,
            "were not checked: the API server did not answer",
        ),
    ] {
        let answer = answer(&reviews(action, 1, 1), &service(secret, key)).await;
        assert_eq!(answer["allowed"], allowed, "{answer}");
        let told = match (allowed, text) {
            (true, "") => {
                assert!(
                    answer.get("warnings").is_none() && answer.get("status").is_none(),
                    "{answer}"
                );
                continue;
            }
            (true, _) => &answer["warnings"][0],
            (false, _) => &answer["status"]["message"],
        };
        assert!(told.as_str().is_some_and(|told| told.contains(text)), "{answer}");
        if secret == "broken" && action == Deny {
            assert_eq!(answer["status"]["code"], 429, "clients try again: {answer}");
        }
    }
}

#[tokio::test]
async fn an_account_that_is_missing_is_named() {
    let mut service = service("s3", "token");
    service["spec"]["predictor"]["serviceAccountName"] = json!("nobody");
    let answer = answer(&reviews(EnforcementAction::Deny, 1, 1), &service).await;
    let expected = "spec.predictor.serviceAccountName: ServiceAccount n/nobody not found; create it, or name another";
    assert_eq!(answer["status"]["message"], expected);
}

#[tokio::test]
async fn too_many_names_are_not_looked_up() {
    let mut service = service("s3", "token");
    let volumes =
        (0..100).map(|number| json!({"name": format!("v{number}"), "secret": {"secretName": format!("x{number:03}")}}));
    service["spec"]["predictor"]["volumes"] = volumes.collect();
    let answer = answer(&reviews(EnforcementAction::Warn, 1, 1), &service).await;
    let warnings = answer["warnings"].to_string();
    assert!(
        warnings.contains("Secret n/x000 not found") && warnings.contains("more"),
        "{warnings}"
    );
    let counted = "leanserve: 102 ServiceAccounts and Secrets are referred to; 64 of them were looked up";
    assert_eq!(answer["warnings"][0], counted);
}

#[tokio::test]
async fn secrets_that_were_not_looked_up_are_no_reason_to_refuse() {
    let mut service = service("s3", "token");
    let predictor = &mut service["spec"]["predictor"];
    predictor["serviceAccountName"] = json!("crowded");
    predictor["model"]["storageUri"] = json!("s3://bucket/m");
    let answer = answer(&reviews(EnforcementAction::Deny, 1, 1), &service).await;
    assert_eq!(answer["allowed"], true, "{answer}");
    // The account is the first of the 64, and `listed-62` the last.
    let warnings = answer["warnings"].to_string();
    for told in [
        "72 ServiceAccounts and Secrets are referred to; 64 of them were looked up",
        "Secret n/listed-63 cannot be read (ServiceAccount crowded lists it): it was not looked up",
    ] {
        assert!(warnings.contains(told), "{told} is not in {warnings}");
    }
}

/// A body that waits to be asked for, and tells how much of it was.
struct Asked {
    rest: std::collections::VecDeque<Bytes>,
    taken: Arc<std::sync::atomic::AtomicUsize>,
}

impl Body for Asked {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.taken.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        task::Poll::Ready(self.rest.pop_front().map(|data| Ok(Frame::data(data))))
    }
}

fn asked(version: Version) -> (Request<Asked>, Arc<std::sync::atomic::AtomicUsize>) {
    let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let body = Asked {
        rest: body(&service("absent", "token"))
            .chunks(128)
            .map(Bytes::copy_from_slice)
            .collect(),
        taken: Arc::clone(&taken),
    };
    let mut request = Request::post(PATH).body(body).expect("valid");
    *request.version_mut() = version;
    (request, taken)
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_body_is_read_before_its_turn_and_little_where_it_does_not_come() {
    let reviews = reviews(EnforcementAction::Warn, 1, 1);
    let first = reviews.gate.enter(Instant::now()).await.expect("a permit is free");
    let (request, taken) = asked(Version::HTTP_2);
    let waiting = tokio::spawn({
        let reviews = Arc::clone(&reviews);
        async move { answered(reviews.answer(request).await).await }
    });
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(taken.load(std::sync::atomic::Ordering::Relaxed), 0);
    // The queue is full: this one is answered at once, with its uid and a warning that it was not checked.
    let (request, taken_of_shed) = asked(Version::HTTP_2);
    let (status, shed) = answered(reviews.answer(request).await).await;
    assert_eq!((status, &shed["response"]["uid"]), (200, &json!(UID)));
    assert_eq!(shed["response"]["allowed"], true);
    let warning = shed["response"]["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("were not checked: too many reviews wait"), "{warning}");
    assert_eq!(
        taken_of_shed.load(std::sync::atomic::Ordering::Relaxed),
        1,
        "the uid is in the first piece"
    );
    drop(first);
    let (_, answer) = waiting.await.expect("no panic");
    assert!(
        answer["response"]["warnings"]
            .to_string()
            .contains("n/absent not found"),
        "{answer}"
    );
    assert!(reviews.gate.is_idle());
}

#[tokio::test(start_paused = true)]
async fn an_older_connection_is_emptied_before_it_is_answered() {
    let reviews = reviews(EnforcementAction::Deny, 1, 0);
    let _first = reviews.gate.enter(Instant::now()).await.expect("a permit is free");
    let (request, taken) = asked(Version::HTTP_11);
    let pieces = request.body().rest.len();
    let (_, answer) = answered(reviews.answer(request).await).await;
    assert_eq!(answer["response"]["allowed"], false);
    assert_eq!(answer["response"]["status"]["code"], 429);
    assert_eq!(answer["response"]["status"]["details"]["retryAfterSeconds"], 1);
    assert_eq!(taken.load(std::sync::atomic::Ordering::Relaxed), pieces + 1);
}

#[tokio::test(start_paused = true)]
async fn the_wait_ends_before_the_api_server_gives_up() {
    let reviews = reviews(EnforcementAction::Warn, 1, 1);
    let _first = reviews.gate.enter(Instant::now()).await.expect("a permit is free");
    let began = Instant::now();
    let answer = answer(&reviews, &service("s3", "token")).await;
    assert!(
        answer["warnings"].to_string().contains("its turn did not come in time"),
        "{answer}"
    );
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_ends_in_time() {
    let reviews = reviews(EnforcementAction::Warn, 1, 1);
    let start = body(&service("s3", "token"))[..200].to_vec();
    let endless = stream::once(async { Ok::<_, Infallible>(Frame::data(Bytes::from(start))) }).chain(stream::pending());
    let request = Request::post(format!("{PATH}?timeout=5s")).body(StreamBody::new(Box::pin(endless)));
    let began = Instant::now();
    let (status, answer) = answered(reviews.answer(request.expect("valid")).await).await;
    assert_eq!(
        (status, &answer["response"]["uid"]),
        (200, &json!(UID)),
        "the uid had come"
    );
    assert!(
        answer["response"]["warnings"].to_string().contains("it took too long"),
        "{answer}"
    );
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_is_too_big_is_not_read_or_not_parsed() {
    for action in [EnforcementAction::Warn, EnforcementAction::Deny] {
        let reviews = reviews(action, 1, 1);
        let mut big = service("s3", "token");
        big["spec"]["predictor"]["args"] = json!("x".repeat(MOST_BODY));
        let mut dense = service("s3", "token");
        dense["spec"]["predictor"]["args"] = json!(vec![0; 200_000]);
        for object in [big, dense] {
            let answer = answer(&reviews, &object).await;
            assert_eq!(answer["allowed"], action == EnforcementAction::Warn);
            assert!(answer.to_string().contains("the object is too large"), "{answer}");
            assert_ne!(answer["status"]["code"], 429, "trying again does not help");
        }
    }
}

#[tokio::test]
async fn memory_that_is_used_up_sheds_honestly() {
    let reviews = reviews(EnforcementAction::Warn, 4, 4);
    memory_guard::Shed::shed(&gate::Reviews(Arc::clone(&reviews.gate)), Level::Refuse);
    let answer = answer(&reviews, &service("s3", "token")).await;
    assert!(
        answer["warnings"]
            .to_string()
            .contains("were not checked: memory is short"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_is_no_review_is_refused() {
    let reviews = reviews(EnforcementAction::Warn, 1, 1);
    let (status, _) = answered(reviews.answer(request(b"{}".to_vec())).await).await;
    assert_eq!(status, 400);
    let elsewhere = Request::post("/other").body(Full::new(Bytes::new())).expect("valid");
    assert_eq!(reviews.answer(elsewhere).await.status(), StatusCode::NOT_FOUND);
    let get = Request::get(PATH).body(Full::new(Bytes::new())).expect("valid");
    assert_eq!(reviews.answer(get).await.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[test]
fn times_follow_what_the_api_server_waits() {
    let arrived = Instant::now();
    for (query, answer) in [
        ("timeout=5s", 4000),
        ("a=b&timeout=1s", 800),
        ("timeout=30s", 24_000),
        ("timeout=10m", 24_000),
        ("timeout=0s", 800),
        ("", 8000),
        ("timeout=soon", 8000),
    ] {
        let wait = Duration::from_millis(25);
        assert_eq!(Deadlines::of(query, wait, arrived).turn, arrived + wait);
        let deadlines = Deadlines::of(query, Duration::from_secs(30), arrived);
        assert_eq!(deadlines.answer - arrived, Duration::from_millis(answer), "{query}");
        assert!(deadlines.turn < deadlines.answer);
    }
}
