//! `leanserve render`: what services become, from files and without a cluster.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use isvc_core::{
    manifests::{ManifestError, Manifests},
    observed::StorageInjection,
    render::{Rendered, render, runtime_warnings},
};
use serde_json::{Value, json};
use thiserror::Error;

use crate::args::{InjectionFlag, OutputFormat, RenderArgs};

/// The most one file may hold, in bytes. The API server takes 3 MiB an object.
const FILE_LIMIT: u64 = 64 * 1024 * 1024;

/// Why nothing, or not everything, could be rendered.
#[derive(Debug, Error)]
pub(crate) enum RenderError {
    #[error("cannot read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: larger than {} MiB", FILE_LIMIT / 1024 / 1024, path = path.display())]
    TooLarge { path: PathBuf },
    /// The reader's own message may repeat what it could not read, and that may be a Secret.
    #[error("{path}: cannot be read as YAML or JSON{place}", path = path.display())]
    Unreadable { path: PathBuf, place: String },
    #[error("{path}: {source}", path = path.display())]
    Manifest { path: PathBuf, source: Box<ManifestError> },
    #[error("no InferenceService in the given files")]
    Nothing,
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
    #[error("cannot write YAML: {0}")]
    Yaml(String),
    #[error("{failed} of {all} InferenceServices cannot be built as they are; the output says why")]
    Problems { failed: usize, all: usize },
}

/// Reads the files, prints to `out` what their services become, and to `notes` what was passed over.
pub(crate) fn run(args: &RenderArgs, out: &mut impl io::Write, notes: &mut impl io::Write) -> Result<(), RenderError> {
    let injection = match args.storage_injection {
        InjectionFlag::Deployment => StorageInjection::Deployment,
        InjectionFlag::Annotations => StorageInjection::Annotations,
    };
    let mut manifests = Manifests::new(&args.platform_namespace, &args.namespace, injection);
    for path in &args.filename {
        for document in documents(path)? {
            manifests.add(document).map_err(|source| RenderError::Manifest {
                path: path.clone(),
                source: Box::new(source),
            })?;
        }
    }
    for ignored in manifests.ignored() {
        writeln!(notes, "leanserve: {ignored}: plays no part")?;
    }
    for warning in runtime_warnings(&manifests) {
        writeln!(notes, "leanserve: {warning}")?;
    }
    let rendered = render(&manifests);
    if rendered.is_empty() {
        return Err(RenderError::Nothing);
    }
    let text = match args.output {
        OutputFormat::Yaml => yaml(&rendered)?,
        OutputFormat::Json => json(&rendered),
    };
    out.write_all(text.as_bytes())?;
    out.flush()?;
    let failed = rendered.iter().filter(|one| !one.problems.is_empty()).count();
    if failed > 0 {
        return Err(RenderError::Problems {
            failed,
            all: rendered.len(),
        });
    }
    Ok(())
}

fn documents(path: &Path) -> Result<Vec<Value>, RenderError> {
    let read = |source| RenderError::Read {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    let limit = FILE_LIMIT + 1;
    let length = if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_string(&mut text)
    } else {
        let file = fs::File::open(path).map_err(read)?;
        file.take(limit).read_to_string(&mut text)
    };
    if length.map_err(read)? as u64 > FILE_LIMIT {
        return Err(RenderError::TooLarge { path: path.to_owned() });
    }
    // `n` and `y` are names, not booleans: Kubernetes reads YAML as JSON with comments.
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(&text, options).map_err(|error| RenderError::Unreadable {
            path: path.to_owned(),
            place: error.location().map_or(String::new(), |location| {
                format!(", line {} column {}", location.line(), location.column())
            }),
        })?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Objects that can be applied or compared as they are; the resolution stands above them as a comment.
fn yaml(rendered: &[Rendered]) -> Result<String, RenderError> {
    let mut text = String::new();
    for one in rendered {
        comment(&mut text, one);
        for object in &one.objects {
            let object = serde_saphyr::to_string(object).map_err(|error| RenderError::Yaml(error.to_string()))?;
            text.push_str("---\n");
            text.push_str(&object);
        }
    }
    Ok(text)
}

fn comment(text: &mut String, rendered: &Rendered) {
    let mut line = |content: &str| {
        for part in content.lines() {
            writeln!(text, "# {part}").expect("writing to a String cannot fail");
        }
    };
    line(&format!("InferenceService {}/{}", rendered.namespace, rendered.name));
    match &rendered.runtime {
        Some((scope, name)) => line(&format!("  runtime: {} {name}", scope.kind())),
        None => line("  runtime: none"),
    }
    for one in &rendered.passed_over {
        line(&format!(
            "  passed over: {} {}: {}",
            one.scope.kind(),
            one.name,
            one.why
        ));
    }
    for (reason, message) in &rendered.problems {
        line(&format!("  problem: {reason}: {message}"));
    }
    for warning in &rendered.warnings {
        line(&format!("  no effect: {warning}"));
    }
}

fn json(rendered: &[Rendered]) -> String {
    let services: Vec<Value> = rendered
        .iter()
        .map(|one| {
            json!({
                "namespace": one.namespace,
                "name": one.name,
                "resolution": one.resolution(),
                "objects": one.objects,
            })
        })
        .collect();
    format!("{:#}\n", json!({"services": services}))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: iris, namespace: d}\n\
        spec: {predictor: {serviceAccountName: s3, model: {modelFormat: {name: sklearn}, storageUri: s3://b/m}}}\n---\n";
    const RUNTIMES: &str = "apiVersion: serving.kserve.io/v1alpha1\nkind: ClusterServingRuntime\nmetadata: {name: fits}\n\
        spec: {supportedModelFormats: [{name: sklearn, autoSelect: true, priority: 2}], protocolVersions: [v1], \
        containers: [{name: kserve-container, image: 'server:1'}]}\n---\n\
        apiVersion: serving.kserve.io/v1alpha1\nkind: ClusterServingRuntime\nmetadata: {name: lower}\n\
        spec: {supportedModelFormats: [{name: sklearn, autoSelect: true, priority: 1}], protocolVersions: [v1], \
        containers: [{name: kserve-container, image: 'server:2'}]}\n---\n\
        apiVersion: serving.kserve.io/v1alpha1\nkind: ClusterServingRuntime\nmetadata: {name: other}\n\
        spec: {supportedModelFormats: [{name: onnx, autoSelect: true}], containers: [{name: kserve-container}]}\n---\n";
    const ACCOUNT: &str =
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: s3, namespace: d}\nsecrets: [{name: keys}]\n---\n";
    const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys, namespace: d}\n\
        stringData: {AWS_ACCESS_KEY_ID: planted-id, AWS_SECRET_ACCESS_KEY: planted-value, S3_ENDPOINT: minio}\n---\n";

    fn rendered(text: &str, output: OutputFormat) -> (Result<(), RenderError>, String, String) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("written");
        let args = RenderArgs {
            filename: vec![file.path().to_owned()],
            output,
            namespace: "default".into(),
            platform_namespace: "kserve".into(),
            storage_injection: InjectionFlag::Deployment,
        };
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let result = run(&args, &mut out, &mut notes);
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (result, text(out), text(notes))
    }

    #[test]
    fn objects_and_the_resolution_are_printed_and_values_of_secrets_are_not() {
        let all = [SERVICE, RUNTIMES, ACCOUNT, SECRET].concat();
        for output in [OutputFormat::Yaml, OutputFormat::Json] {
            let (result, out, _) = rendered(&all, output);
            result.expect("renders");
            assert!(
                out.contains("name: fits") || out.contains("ClusterServingRuntime fits") || out.contains("\"fits\"")
            );
            assert!(
                out.contains("fits; fits comes first because its priority is 2 and not 1"),
                "{out}"
            );
            assert!(out.contains("does not support format"), "{out}");
            assert!(out.contains("secretKeyRef") && out.contains("minio"), "{out}");
            assert!(!out.contains("planted"), "{out}");
            for kind in ["Service", "Deployment", "HorizontalPodAutoscaler", "Ingress"] {
                assert!(out.contains(kind), "{kind} in {out}");
            }
        }
    }

    #[test]
    fn yaml_reads_back_as_objects() {
        let (_, out, _) = rendered(&[SERVICE, RUNTIMES, ACCOUNT, SECRET].concat(), OutputFormat::Yaml);
        let objects: Vec<Value> = serde_saphyr::from_multiple(&out).expect("YAML");
        let kinds: Vec<_> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
        assert_eq!(kinds, ["Service", "Deployment", "HorizontalPodAutoscaler", "Ingress"]);
    }

    #[test]
    fn what_cannot_be_built_says_why_and_fails() {
        let (result, out, _) = rendered(&[SERVICE, RUNTIMES].concat(), OutputFormat::Yaml);
        assert!(matches!(result, Err(RenderError::Problems { failed: 1, all: 1 })));
        assert!(out.contains("ServiceAccount d/s3 not found"), "{out}");
        let (result, out, _) = rendered(SERVICE, OutputFormat::Json);
        assert!(result.is_err() && out.contains("RuntimeNotUsable"), "{out}");
    }

    #[test]
    fn errors_name_the_file_and_the_field_and_repeat_no_secret() {
        let broken = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: planted-value\n";
        for text in [broken, "a: [planted-value\nb: }", "planted-value"] {
            let (result, out, notes) = rendered(text, OutputFormat::Yaml);
            let error = result.expect_err("is refused").to_string();
            assert!(!format!("{error}{out}{notes}").contains("planted"), "{error}");
        }
        let (result, ..) = rendered(
            &SERVICE.replace("modelFormat: {name: sklearn}", "modelFormat: 5"),
            OutputFormat::Yaml,
        );
        let error = result.expect_err("is refused").to_string();
        assert!(error.contains("spec.predictor.model.modelFormat"), "{error}");
    }

    #[test]
    fn what_plays_no_part_is_noted() {
        let other = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n---\n";
        let (_, _, notes) = rendered(&[SERVICE, other].concat(), OutputFormat::Yaml);
        assert!(notes.contains("Pod default/p"), "{notes}");
    }
}
