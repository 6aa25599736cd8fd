//! Volume sources that one provider or retired driver serves; kept because stored objects use them.

use crate::crd::container::local_reference;
use crate::crd::schema::{Field, boolean, field, int32, object, required, string, string_map, strings};

/// All of them, two or three fields each.
pub(super) fn provider_sources() -> Vec<Field> {
    let mut sources = cloud_disks();
    sources.extend(network_files());
    sources.extend(network_disks());
    sources.extend(storage_clusters());
    sources
}

fn fs_type() -> Field {
    field("fsType", string("File system to mount."))
}

fn read_only() -> Field {
    field("readOnly", boolean("Mount read-only."))
}

fn secret() -> Field {
    field("secretRef", local_reference("Secret with the credentials."))
}

fn monitors() -> Field {
    required("monitors", strings("Ceph monitors.").atomic())
}

/// Volumes of cloud providers.
fn cloud_disks() -> Vec<Field> {
    vec![
        field(
            "awsElasticBlockStore",
            object(
                "A volume of AWS EBS.",
                [
                    required("volumeID", string("Id of the volume.")),
                    field("partition", int32("Partition to mount.")),
                    fs_type(),
                    read_only(),
                ],
            ),
        ),
        field(
            "azureDisk",
            object(
                "A data disk of Azure.",
                [
                    required("diskName", string("Name of the disk.")),
                    required("diskURI", string("URI of the disk.")),
                    field("cachingMode", string("Host caching: None, ReadOnly or ReadWrite.")),
                    field("kind", string("Shared, Dedicated or Managed.")),
                    field("fsType", string("File system to mount.").default("ext4")),
                    field("readOnly", boolean("Mount read-only.").default(false)),
                ],
            ),
        ),
        field(
            "azureFile",
            object(
                "A file share of Azure.",
                [
                    required("secretName", string("Secret with account name and key.")),
                    required("shareName", string("Name of the share.")),
                    read_only(),
                ],
            ),
        ),
        field(
            "gcePersistentDisk",
            object(
                "A persistent disk of Google Cloud.",
                [
                    required("pdName", string("Name of the disk.")),
                    field("partition", int32("Partition to mount.")),
                    fs_type(),
                    read_only(),
                ],
            ),
        ),
        field(
            "cinder",
            object(
                "A volume of OpenStack Cinder.",
                [
                    required("volumeID", string("Id of the volume.")),
                    fs_type(),
                    read_only(),
                    secret(),
                ],
            ),
        ),
        field(
            "vsphereVolume",
            object(
                "A vSphere disk.",
                [
                    required("volumePath", string("Path of the disk.")),
                    field("storagePolicyID", string("Id of the storage policy.")),
                    field("storagePolicyName", string("Name of the storage policy.")),
                    fs_type(),
                ],
            ),
        ),
        field(
            "photonPersistentDisk",
            object(
                "A Photon Controller disk.",
                [required("pdID", string("Id of the disk.")), fs_type()],
            ),
        ),
    ]
}

/// Shared file systems and directories.
fn network_files() -> Vec<Field> {
    vec![
        field(
            "cephfs",
            object(
                "A CephFS mount.",
                [
                    monitors(),
                    field("path", string("Path in the file system.")),
                    field("user", string("Ceph user.")),
                    field("secretFile", string("Key ring on the node.")),
                    secret(),
                    read_only(),
                ],
            ),
        ),
        field(
            "glusterfs",
            object(
                "A GlusterFS mount.",
                [
                    required("endpoints", string("Endpoints object of the cluster.")),
                    required("path", string("Path of the volume.")),
                    read_only(),
                ],
            ),
        ),
        field(
            "quobyte",
            object(
                "A Quobyte volume.",
                [
                    required("registry", string("Registries as host:port, comma separated.")),
                    required("volume", string("Name of the volume.")),
                    field("tenant", string("Tenant that owns it.")),
                    field("user", string("User to mount as.")),
                    field("group", string("Group to mount as.")),
                    read_only(),
                ],
            ),
        ),
        field(
            "gitRepo",
            object(
                "A git checkout; retired by Kubernetes.",
                [
                    required("repository", string("URL of the repository.")),
                    field("revision", string("Commit to check out.")),
                    field("directory", string("Directory to check out into.")),
                ],
            ),
        ),
        field(
            "flocker",
            object(
                "A Flocker volume.",
                [
                    field("datasetName", string("Name of the dataset.")),
                    field("datasetUUID", string("UUID of the dataset.")),
                ],
            ),
        ),
        field(
            "flexVolume",
            object(
                "A volume of an exec based driver.",
                [
                    required("driver", string("Name of the driver.")),
                    field("options", string_map("Settings the driver understands.")),
                    fs_type(),
                    read_only(),
                    secret(),
                ],
            ),
        ),
    ]
}

/// Disks of a storage area network.
fn network_disks() -> Vec<Field> {
    vec![
        field(
            "fc",
            object(
                "A Fibre Channel volume.",
                [
                    field("targetWWNs", strings("Target world wide names.").atomic()),
                    field("lun", int32("Logical unit number.")),
                    field("wwids", strings("World wide identifiers.").atomic()),
                    fs_type(),
                    read_only(),
                ],
            ),
        ),
        field(
            "iscsi",
            object(
                "An iSCSI disk.",
                [
                    required("targetPortal", string("Portal address, with port if not the default.")),
                    required("iqn", string("Qualified name of the target.")),
                    required("lun", int32("Logical unit number.")),
                    field("portals", strings("More portals.").atomic()),
                    field(
                        "iscsiInterface",
                        string("Interface of the initiator.").default("default"),
                    ),
                    field("initiatorName", string("Own initiator name.")),
                    field("chapAuthDiscovery", boolean("CHAP for discovery.")),
                    field("chapAuthSession", boolean("CHAP for sessions.")),
                    fs_type(),
                    read_only(),
                    secret(),
                ],
            ),
        ),
    ]
}

/// Volumes of storage clusters.
fn storage_clusters() -> Vec<Field> {
    vec![
        field(
            "portworxVolume",
            object(
                "A Portworx volume.",
                [
                    required("volumeID", string("Id of the volume.")),
                    fs_type(),
                    read_only(),
                ],
            ),
        ),
        field(
            "rbd",
            object(
                "A Ceph block device.",
                [
                    monitors(),
                    required("image", string("Name of the image.")),
                    field("pool", string("Pool of the image.").default("rbd")),
                    field("user", string("Ceph user.").default("admin")),
                    field("keyring", string("Key ring on the node.").default("/etc/ceph/keyring")),
                    fs_type(),
                    read_only(),
                    secret(),
                ],
            ),
        ),
        field(
            "scaleIO",
            object(
                "A ScaleIO volume.",
                [
                    required("gateway", string("Address of the gateway.")),
                    required("system", string("Name of the storage system.")),
                    required("secretRef", local_reference("Secret with the credentials.")),
                    field("protectionDomain", string("Protection domain.")),
                    field("storagePool", string("Storage pool.")),
                    field(
                        "storageMode",
                        string("ThickProvisioned or ThinProvisioned.").default("ThinProvisioned"),
                    ),
                    field("volumeName", string("Name of the volume.")),
                    field("sslEnabled", boolean("Speak TLS to the gateway.")),
                    field("fsType", string("File system to mount.").default("xfs")),
                    read_only(),
                ],
            ),
        ),
        field(
            "storageos",
            object(
                "A StorageOS volume.",
                [
                    field("volumeName", string("Name of the volume.")),
                    field("volumeNamespace", string("Namespace in StorageOS.")),
                    fs_type(),
                    read_only(),
                    secret(),
                ],
            ),
        ),
    ]
}
