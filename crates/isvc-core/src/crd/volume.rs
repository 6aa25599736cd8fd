//! Volumes of a Pod.

mod provider;

use super::container::{field_reference, local_reference, resource_reference};
use super::schema::{
    Field, Schema, boolean, field, int32, int64, item, list, object, opaque, quantities, quantity, required, string,
    string_map, strings,
};
use provider::provider_sources;

/// One volume: a name and one source.
pub(super) fn volume() -> Schema {
    let mut fields = vec![required("name", string("Name that volumeMounts refer to."))];
    fields.extend(common_sources());
    fields.extend(outside_sources());
    fields.extend(provider_sources());
    item(fields)
}

/// Sources the cluster provides itself.
fn common_sources() -> Vec<Field> {
    vec![
        field(
            "emptyDir",
            object(
                "Scratch space that lives as long as the Pod.",
                [
                    field("medium", string("Empty for the node's disk, Memory for tmpfs.")),
                    field("sizeLimit", quantity("Upper bound of its size.")),
                ],
            ),
        ),
        field(
            "configMap",
            object("Keys of a ConfigMap as files.", {
                let mut fields = keys_as_files("Name of the ConfigMap.");
                fields.push(default_mode());
                fields
            })
            .atomic(),
        ),
        field(
            "secret",
            object(
                "Keys of a Secret as files.",
                [
                    field("secretName", string("Name of the Secret.")),
                    key_paths(),
                    field("optional", boolean("Absence is no error.")),
                    default_mode(),
                ],
            ),
        ),
        field(
            "persistentVolumeClaim",
            object(
                "A claim of the same namespace.",
                [
                    required("claimName", string("Name of the claim.")),
                    field("readOnly", boolean("Mount read-only.")),
                ],
            ),
        ),
        field("projected", projected()),
        field(
            "downwardAPI",
            object("Facts about the Pod as files.", [downward_items(), default_mode()]),
        ),
        field("ephemeral", ephemeral()),
    ]
}

/// Sources that live outside the cluster's own objects.
fn outside_sources() -> Vec<Field> {
    vec![
        field(
            "hostPath",
            object(
                "A path of the node.",
                [
                    required("path", string("Path on the node.")),
                    field("type", string("What must be there, such as Directory or File.")),
                ],
            ),
        ),
        field(
            "csi",
            object(
                "An inline volume of a CSI driver.",
                [
                    required("driver", string("Name of the driver.")),
                    field("fsType", string("File system to mount.")),
                    field("readOnly", boolean("Mount read-only.")),
                    field("volumeAttributes", string_map("Settings the driver understands.")),
                    field("nodePublishSecretRef", local_reference("Secret handed to the driver.")),
                ],
            ),
        ),
        field(
            "nfs",
            object(
                "An NFS export.",
                [
                    required("server", string("Host of the NFS server.")),
                    required("path", string("Exported path.")),
                    field("readOnly", boolean("Mount read-only.")),
                ],
            ),
        ),
        field(
            "image",
            object(
                "Content of an OCI image or artifact, read-only.",
                [
                    field("reference", string("Image reference.")),
                    field("pullPolicy", string("When to pull: Always, IfNotPresent or Never.")),
                ],
            ),
        ),
    ]
}

fn default_mode() -> Field {
    field("defaultMode", int32("Permission bits of files without their own."))
}

fn key_paths() -> Field {
    field(
        "items",
        list(
            "Keys to take and where; all keys if empty.",
            item([
                required("key", string("Key to take.")),
                required("path", string("File to write, relative to the mount.")),
                field("mode", int32("Permission bits of the file.")),
            ]),
        )
        .atomic(),
    )
}

fn keys_as_files(name: &str) -> Vec<Field> {
    vec![
        field("name", string(name).default("")),
        key_paths(),
        field("optional", boolean("Absence is no error.")),
    ]
}

fn downward_items() -> Field {
    field(
        "items",
        list(
            "Files to write.",
            item([
                required("path", string("File to write, relative to the mount.")),
                field("fieldRef", field_reference()),
                field("resourceFieldRef", resource_reference()),
                field("mode", int32("Permission bits of the file.")),
            ]),
        )
        .atomic(),
    )
}

fn projected() -> Schema {
    let source = item([
        field(
            "configMap",
            object("Keys of a ConfigMap.", keys_as_files("Name of the ConfigMap.")).atomic(),
        ),
        field(
            "secret",
            object("Keys of a Secret.", keys_as_files("Name of the Secret.")).atomic(),
        ),
        field("downwardAPI", object("Facts about the Pod.", [downward_items()])),
        field(
            "serviceAccountToken",
            object(
                "A token of the Pod's ServiceAccount.",
                [
                    required("path", string("File to write, relative to the mount.")),
                    field("audience", string("Audience of the token; the API server if empty.")),
                    field("expirationSeconds", int64("Wanted lifetime of the token.")),
                ],
            ),
        ),
        field(
            "clusterTrustBundle",
            object(
                "Certificates of ClusterTrustBundles.",
                [
                    required("path", string("File to write, relative to the mount.")),
                    field("name", string("One bundle by name.")),
                    field("signerName", string("All bundles of a signer.")),
                    field("labelSelector", label_selector("Which of the signer's bundles.")),
                    field("optional", boolean("Absence is no error.")),
                ],
            ),
        ),
        field(
            "podCertificate",
            object(
                "A key and certificate issued for the Pod.",
                [
                    required("signerName", string("Signer that issues it.")),
                    required("keyType", string("Kind of key, such as ED25519.")),
                    field("credentialBundlePath", string("File for key and chain together.")),
                    field("keyPath", string("File for the key alone.")),
                    field("certificateChainPath", string("File for the chain alone.")),
                    field("maxExpirationSeconds", int32("Longest lifetime accepted.")),
                    field("userAnnotations", string_map("Hints passed to the signer.")),
                ],
            ),
        ),
    ]);
    object(
        "Several sources in one directory.",
        [field("sources", list("The sources.", source).atomic()), default_mode()],
    )
}

fn ephemeral() -> Schema {
    let reference = |description: &str| {
        vec![
            field("apiGroup", string("API group; core if empty.")),
            required("kind", string(description)),
            required("name", string("Name of the object.")),
        ]
    };
    let mut any_reference = reference("Kind of the object.");
    any_reference.push(field("namespace", string("Namespace, if another one.")));
    let spec = object(
        "Spec of the claim.",
        [
            field("accessModes", strings("Ways the volume may be mounted.").atomic()),
            field("storageClassName", string("Storage class.")),
            field(
                "resources",
                object(
                    "Size of the volume.",
                    [
                        field("requests", quantities("Smallest amounts, by resource.")),
                        field("limits", quantities("Largest amounts, by resource.")),
                    ],
                ),
            ),
            field("selector", label_selector("Which volumes may be bound.")),
            field("volumeName", string("The volume to bind.")),
            field("volumeMode", string("Filesystem or Block.")),
            field("volumeAttributesClassName", string("Volume attributes class.")),
            field(
                "dataSource",
                object("Snapshot or claim to start from.", reference("Kind of the object.")).atomic(),
            ),
            field("dataSourceRef", object("Any object to start from.", any_reference)),
        ],
    );
    object(
        "A claim made for this Pod and deleted with it.",
        [field(
            "volumeClaimTemplate",
            object(
                "The claim to make.",
                [
                    field("metadata", opaque("Labels and annotations of the claim.")),
                    required("spec", spec),
                ],
            ),
        )],
    )
}

/// A selector by labels.
pub(super) fn label_selector(description: &str) -> Schema {
    object(
        description,
        [
            field("matchLabels", string_map("Labels with exactly these values.")),
            field("matchExpressions", requirements("Requirements on labels.")),
        ],
    )
    .atomic()
}

/// Requirements that must all hold.
pub(super) fn requirements(description: &str) -> Schema {
    list(
        description,
        item([
            required("key", string("Key to look at.")),
            required("operator", string("How key and values relate, such as In or Exists.")),
            field("values", strings("Values to compare with.").atomic()),
        ]),
    )
    .atomic()
}
