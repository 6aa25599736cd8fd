//! What a model's URI says of how it comes into the Pod.

use std::sync::LazyLock;

use regex::Regex;

use crate::{
    api::Component,
    observed::Observed,
    rejection::Rejection,
    settings::{OciModelMode, StorageInitializer},
};

use super::container;

const ACCEPTED_SCHEMES: [&str; 12] = [
    "gs://",
    "s3://",
    "pvc://",
    "file://",
    "https://",
    "http://",
    "hdfs://",
    "webhdfs://",
    "oci://",
    "oci+native://",
    "oci+fetch://",
    "hf://",
];

/// Where a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source<'a> {
    /// In a claim, which is mounted as it is.
    Claim {
        /// Name of the `PersistentVolumeClaim`.
        claim: &'a str,
        /// Path below the volume's root; empty for the root.
        sub_path: &'a str,
    },
    /// In the directory `/models` of an image.
    Image {
        /// How it is taken from there.
        mode: OciModelMode,
        /// The image.
        reference: &'a str,
    },
    /// Somewhere the storage-initializer can reach.
    Download,
}

impl<'a> Source<'a> {
    /// A suffix of the scheme says how an image is used, whatever the platform's mode is; `KServe` forgets the suffix of
    /// a single URI where images are switched off.
    pub(super) fn of(uri: &'a str, settings: &StorageInitializer) -> Self {
        if let Some(path) = uri.strip_prefix("pvc://") {
            let (claim, sub_path) = path.split_once('/').unwrap_or((path, ""));
            return Self::Claim { claim, sub_path };
        }
        let suffixes = [
            ("oci+modelcar://", Some(OciModelMode::Modelcar)),
            ("oci+native://", Some(OciModelMode::Native)),
            ("oci+fetch://", Some(OciModelMode::Fetch)),
            ("oci://", settings.effective_oci_model_mode()),
        ];
        suffixes
            .into_iter()
            .find_map(|(scheme, mode)| {
                let reference = uri.strip_prefix(scheme)?;
                Some(Self::Image { mode: mode?, reference })
            })
            .unwrap_or(Self::Download)
    }
}

static BLOB: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"https://(.+?)\.blob\.core\.windows\.net/(.+)").expect("the pattern is constant and valid")
});

/// Refuses a single URI that nothing here can bring; said before anything else is decided.
pub(in crate::resolve) fn check_uri(
    component: &Component,
    uri: Option<&str>,
    observed: &Observed,
) -> Result<(), Rejection> {
    let Some(uri) = uri.filter(|uri| !uri.is_empty()) else {
        return Ok(());
    };
    let storage = component.model.as_ref().and_then(|model| model.storage.as_ref());
    if storage.is_some_and(|storage| storage.path.is_some()) {
        let message = "must provide only one of storageUri and storage.path";
        return Err(
            Rejection::new("InvalidStorage", format!("{}: {message}", component.field("model"))).event(message),
        );
    }
    let local = !uri.contains("://");
    let blob = uri.contains("blob.core.windows.net");
    if local
        || (blob && BLOB.is_match(uri))
        || ACCEPTED_SCHEMES.iter().any(|scheme| uri.starts_with(scheme))
        || container::usable(observed).any(|container| container.supports(uri))
    {
        return Ok(());
    }
    let message = format!(
        "StorageURI not supported: storageUri, must be one of: [{}] or match \
         https://{{}}.blob.core.windows.net/{{}}/{{}} or be an absolute or relative local path. StorageUri [{uri}] is not \
         supported",
        ACCEPTED_SCHEMES.join(", ")
    );
    let field = match (&component.model, &component.art) {
        (Some(_), _) => "model.storageUri",
        (None, Some(_)) => "art.storageUri",
        (None, None) => "containers[0].env[STORAGE_URI]",
    };
    Err(Rejection::new(
        "StorageUriNotSupported",
        format!("{}: {message}", component.field(field)),
    )
    .event(message))
}

/// Longest name of a volume, in bytes: it is a DNS label.
const LONGEST_NAME: usize = 63;

/// The volume of a path: its directories, joined. What a volume's name may not hold is replaced, and a digest of the path
/// then keeps the names of different paths apart.
pub(super) fn volume_name(path: &str) -> String {
    let joined = path.trim_matches('/').replace('/', "-");
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = !joined.is_empty()
        && joined.len() <= LONGEST_NAME
        && joined.bytes().all(allowed)
        && !joined.starts_with('-')
        && !joined.ends_with('-');
    if is_label { joined } else { digested_volume_name(path) }
}

/// As [`volume_name`], always with the digest.
pub(super) fn digested_volume_name(path: &str) -> String {
    // FNV-1a: the name must be the same in every version of this program, or its Pods would be replaced.
    let digest = path.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let kept: String = path
        .to_ascii_lowercase()
        .chars()
        .map(|character| {
            if character.is_ascii_alphanumeric() {
                character
            } else {
                '-'
            }
        })
        .take(LONGEST_NAME - 9)
        .collect();
    match kept.trim_matches('-') {
        "" => format!("model-{digest:08x}"),
        kept => format!("{kept}-{digest:08x}"),
    }
}
