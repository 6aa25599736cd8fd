//! Models in OCI images, below the directory `/models`.

use std::path::Path;

use serde_json::{Value, json};

use crate::{api::Object, named, names, rejection::Rejection, settings::OciModelMode};

use super::{super::env, Request, initializer::Initializer, pod};

/// A model in an image.
pub(super) struct Image<'a> {
    /// How it is taken from there.
    pub(super) mode: OciModelMode,
    /// The image.
    pub(super) reference: &'a str,
    /// Where the server finds the model.
    pub(super) path: &'a str,
    /// The volume at that path, where the mode has one.
    pub(super) volume: String,
}

impl Image<'_> {
    /// Where the server gets a volume for it.
    pub(super) fn mount_path(&self) -> &str {
        match self.mode {
            OciModelMode::Modelcar => parent(self.path),
            OciModelMode::Native | OciModelMode::Fetch => self.path,
        }
    }
}

/// The one model of a component.
pub(super) fn bring_single(pod: &mut Object, image: &Image<'_>, request: &Request<'_>) -> Result<(), Rejection> {
    if image.mode != OciModelMode::Fetch {
        return attach(pod, 0, image, request);
    }
    if named::has(pod, "initContainers", names::STORAGE_INITIALIZER) {
        return Ok(());
    }
    Initializer::fetch(None, &[image], pod, request).place(pod);
    mount_fetched(pod, image)
}

/// Gives the server a fetched model.
pub(super) fn mount_fetched(pod: &mut Object, image: &Image<'_>) -> Result<(), Rejection> {
    pod::mount(pod, &json!({"name": image.volume, "mountPath": image.path}))
}

/// Brings an image that is not fetched; `index` counts the images of the Pod.
pub(super) fn attach(
    pod: &mut Object,
    index: usize,
    image: &Image<'_>,
    request: &Request<'_>,
) -> Result<(), Rejection> {
    pod::check_server(pod)?;
    match image.mode {
        OciModelMode::Modelcar => {
            modelcar(pod, index, image, request);
            Ok(())
        }
        OciModelMode::Native => volume(pod, image, request),
        // The storage-initializer's.
        OciModelMode::Fetch => Ok(()),
    }
}

/// A sidecar that runs the image and links the server to its files, which share one view of processes.
fn modelcar(pod: &mut Object, index: usize, image: &Image<'_>, request: &Request<'_>) {
    let numbered = |name: &str| match index {
        0 => name.to_owned(),
        index => format!("{name}-{index}"),
    };
    let name = numbered(names::MODELCAR);
    if named::has(pod, "containers", &name) {
        return;
    }
    let settings = &request.settings().storage_initializer;
    let volume = numbered(names::PROVISION_VOLUME);
    let directory = parent(image.path);
    let mount = json!({"name": volume, "mountPath": directory});
    for server in pod::servers(pod) {
        env::set(env::list_of(server), env::value("MODEL_INIT_MODE", "async"));
        named::add(server, "volumeMounts", mount.clone());
        if let Some(uid) = settings.uid_modelcar {
            run_container_as(server, uid);
        }
    }
    named::add(pod, "volumes", json!({"name": volume, "emptyDir": {}}));
    pod.insert("shareProcessNamespace".to_owned(), Value::Bool(true));

    let amounts = json!({"cpu": settings.cpu_modelcar, "memory": settings.memory_modelcar});
    let container = |name: &str, script: String| {
        json!({
            "name": name,
            "image": image.reference,
            "args": ["sh", "-c", script],
            "resources": {"limits": amounts, "requests": amounts},
            "terminationMessagePolicy": "FallbackToLogsOnError",
        })
    };
    // Kubernetes makes $$ of $$$$, and the shell its own process of that.
    let link = format!("ln -sf /proc/$$$$/root/models {} && sleep infinity", quoted(image.path));
    let script = if image.path == names::MODEL_PATH {
        link
    } else {
        format!("mkdir -p {} && {link}", quoted(directory))
    };
    let mut sidecar = container(&name, script);
    sidecar["volumeMounts"] = json!([mount]);
    if let Some(uid) = settings.uid_modelcar {
        sidecar["securityContext"] = json!({"runAsUser": uid});
    }
    named::add(pod, "containers", sidecar);

    let init = container(&numbered(names::MODELCAR_INIT), prefetch_script(image.reference));
    named::add(pod, "initContainers", init);
}

/// Pulls the image before the server starts, and checks that there is a model in it. Letter by letter `KServe`'s, or the
/// Pods of a cluster that comes from there would all be replaced.
fn prefetch_script(image: &str) -> String {
    format!(
        "echo 'Pre-fetching modelcar {image}: ' && [ -d /models ] && [ \"$$(ls -A /models)\" ] && echo 'OK ... Prefetched \
         and valid (/models exists)' || (echo 'NOK ... Prefetched but modelcar is invalid (/models does not exist or is \
         empty)' && exit 1)"
    )
}

/// A volume that is the image.
fn volume(pod: &mut Object, image: &Image<'_>, request: &Request<'_>) -> Result<(), Rejection> {
    if let Some(other) = pod::mounted_otherwise(pod, &image.volume, image.path) {
        return Err(Rejection::new(
            "MountPathTaken",
            format!(
                "{}: the model image {} is to be mounted at {}, where volume {other} is already; mount that elsewhere",
                request.component.path(),
                image.reference,
                image.path
            ),
        ));
    }
    named::add(
        pod,
        "volumes",
        json!({"name": image.volume, "image": {"reference": image.reference, "pullPolicy": "IfNotPresent"}}),
    );
    pod::mount(
        pod,
        &json!({"name": image.volume, "mountPath": image.path, "subPath": "models", "readOnly": true}),
    )
}

/// Sets a container's user.
pub(super) fn run_container_as(container: &mut Object, uid: i64) {
    let context = container.entry("securityContext").or_insert_with(|| json!({}));
    if !context.is_object() {
        *context = json!({});
    }
    context["runAsUser"] = Value::from(uid);
}

fn parent(path: &str) -> &str {
    Path::new(path).parent().and_then(Path::to_str).unwrap_or("/")
}

/// A path as one word of the shell.
fn quoted(path: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '/' | '.' | '_' | '-');
    if path.chars().all(plain) {
        return path.to_owned();
    }
    // Kubernetes expands $(NAME) in arguments and makes $ of $$.
    format!("'{}'", path.replace('\'', r"'\''").replace('$', "$$"))
}
