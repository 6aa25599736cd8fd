//! How models reach the Pod: the storage initializer's image and resources, and where credentials are looked up.

use super::{Resources, SettingsError, fields::Fields};

/// The init container that downloads models, and the sidecar that serves them from OCI images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageInitializer {
    /// Its image; `kserve/storage-initializer:latest` when unset.
    pub image: String,
    /// Its resources; a `ConfigMap` that has the data key must set all of them.
    pub resources: Resources,
    /// `ConfigMap` with certificate authorities for storage back ends, in the platform namespace.
    pub ca_bundle_config_map_name: Option<String>,
    /// Where that bundle is mounted; `/etc/ssl/custom-certs` when unset.
    pub ca_bundle_volume_mount_path: String,
    /// Whether `oci://` models are served by a sidecar when [`Self::oci_model_mode`] does not say.
    pub enable_modelcar: bool,
    /// A second name for [`Self::enable_modelcar`].
    pub enable_oci_model_support: bool,
    /// How `oci://` models are served.
    pub oci_model_mode: Option<OciModelMode>,
    /// CPU of the model sidecar; 10m when unset.
    pub cpu_modelcar: String,
    /// Memory of the model sidecar; 15Mi when unset.
    pub memory_modelcar: String,
    /// User that the model sidecar and the model server run as.
    pub uid_modelcar: Option<i64>,
    /// Whether image registries are spoken to without TLS when models are fetched.
    pub oci_insecure_registry: bool,
}

/// How a model in an OCI image reaches the Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OciModelMode {
    /// A sidecar that holds the image's files open.
    Modelcar,
    /// An image volume.
    Native,
    /// The storage initializer copies it.
    Fetch,
}

impl StorageInitializer {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, SettingsError> {
        let oci_model_mode = match fields.text("ociModelMode")?.unwrap_or_default() {
            "" => None,
            "modelcar" => Some(OciModelMode::Modelcar),
            "native" => Some(OciModelMode::Native),
            "fetch" => Some(OciModelMode::Fetch),
            other => {
                return Err(fields.error(
                    "ociModelMode",
                    &format!("unknown mode {other:?}"),
                    "use modelcar, native or fetch, or remove the field",
                ));
            }
        };
        Ok(Self {
            image: fields.text_or("image", "kserve/storage-initializer:latest")?,
            resources: fields.resources()?,
            ca_bundle_config_map_name: fields.some_text("caBundleConfigMapName")?,
            ca_bundle_volume_mount_path: fields.text_or("caBundleVolumeMountPath", "/etc/ssl/custom-certs")?,
            enable_modelcar: fields.flag("enableModelcar")?,
            enable_oci_model_support: fields.flag("enableOciModelSupport")?,
            oci_model_mode,
            cpu_modelcar: fields.quantity("cpuModelcar")?.unwrap_or_else(|| "10m".to_owned()),
            memory_modelcar: fields.quantity("memoryModelcar")?.unwrap_or_else(|| "15Mi".to_owned()),
            uid_modelcar: fields.integer("uidModelcar")?,
            oci_insecure_registry: fields.flag("ociInsecureRegistry")?,
        })
    }

    /// What `oci://` without a suffix means: the configured mode, else the sidecar if it is switched on, else nothing,
    /// and the URI goes to the storage initializer like any other.
    #[must_use]
    pub fn effective_oci_model_mode(&self) -> Option<OciModelMode> {
        let switched_on = self.enable_modelcar || self.enable_oci_model_support;
        self.oci_model_mode.or(switched_on.then_some(OciModelMode::Modelcar))
    }
}

/// Where storage credentials are found and which keys of a Secret hold them. Names only, never a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Secret with storage specifications by key; `storage-config` when unset.
    pub storage_spec_secret_name: String,
    /// Annotation of a service that names the Secret to use; none when unset.
    pub storage_secret_name_annotation: Option<String>,
    /// Key of a Secret that holds a Google Cloud key file; `gcloud-application-credentials.json` when unset.
    pub gcs_credential_file_name: String,
    /// S3.
    pub s3: S3Credentials,
}

/// Key names and defaults for S3; empty text is the same as unset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Credentials {
    /// Key that holds the access key id; `awsAccessKeyID` when unset.
    pub access_key_id_name: String,
    /// Key that holds the secret access key; `awsSecretAccessKey` when unset.
    pub secret_access_key_name: String,
    /// Endpoint, host and port.
    pub endpoint: Option<String>,
    /// `0` for plain HTTP.
    pub use_https: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// `0` to accept any certificate.
    pub verify_ssl: Option<String>,
    /// Virtual-host style addresses.
    pub use_virtual_bucket: Option<String>,
    /// Transfer acceleration.
    pub use_accelerate: Option<String>,
    /// Requests without credentials.
    pub use_anonymous_credential: Option<String>,
    /// `ConfigMap` with the endpoint's certificate authority.
    pub ca_bundle_config_map: Option<String>,
    /// Path of the certificate authority in the Pod.
    pub ca_bundle: Option<String>,
}

impl Credentials {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, SettingsError> {
        let gcs = fields.section("gcs")?;
        let s3 = fields.section("s3")?;
        Ok(Self {
            storage_spec_secret_name: fields.text_or("storageSpecSecretName", "storage-config")?,
            storage_secret_name_annotation: fields.some_text("storageSecretNameAnnotation")?,
            gcs_credential_file_name: gcs.text_or("gcsCredentialFileName", "gcloud-application-credentials.json")?,
            s3: S3Credentials {
                access_key_id_name: s3.text_or("s3AccessKeyIDName", "awsAccessKeyID")?,
                secret_access_key_name: s3.text_or("s3SecretAccessKeyName", "awsSecretAccessKey")?,
                endpoint: s3.some_text("s3Endpoint")?,
                use_https: s3.some_text("s3UseHttps")?,
                region: s3.some_text("s3Region")?,
                verify_ssl: s3.some_text("s3VerifySSL")?,
                use_virtual_bucket: s3.some_text("s3UseVirtualBucket")?,
                use_accelerate: s3.some_text("s3UseAccelerate")?,
                use_anonymous_credential: s3.some_text("s3UseAnonymousCredential")?,
                ca_bundle_config_map: s3.some_text("s3CABundleConfigMap")?,
                ca_bundle: s3.some_text("s3CABundle")?,
            },
        })
    }
}
