//! Security settings of containers and Pods.

use crate::crd::schema::{Field, Schema, boolean, field, int64, object, required, string, strings};

/// Security settings of a container.
pub(super) fn security_context() -> Schema {
    let mut fields = shared_security_fields();
    fields.extend([
        field(
            "allowPrivilegeEscalation",
            boolean("May gain more rights than its parent process."),
        ),
        field("privileged", boolean("Run with the rights of root on the node.")),
        field(
            "readOnlyRootFilesystem",
            boolean("Mount the root file system read-only."),
        ),
        field("procMount", string("How /proc is mounted: Default or Unmasked.")),
        field(
            "capabilities",
            object(
                "Linux capabilities.",
                [
                    field("add", strings("Capabilities added.").atomic()),
                    field("drop", strings("Capabilities removed.").atomic()),
                ],
            ),
        ),
    ]);
    object("Security settings of the container; they win over the Pod's.", fields)
}

/// The security fields that a Pod and a container have in common.
pub(in crate::crd) fn shared_security_fields() -> Vec<Field> {
    let profile = |description: &str| {
        object(
            description,
            [
                required("type", string("RuntimeDefault, Localhost or Unconfined.")),
                field("localhostProfile", string("Profile on the node, for type Localhost.")),
            ],
        )
    };
    vec![
        field("runAsUser", int64("User id of the process.")),
        field("runAsGroup", int64("Group id of the process.")),
        field("runAsNonRoot", boolean("Refuse to run as root.")),
        field("appArmorProfile", profile("AppArmor profile.")),
        field("seccompProfile", profile("Seccomp profile.")),
        field(
            "seLinuxOptions",
            object(
                "SELinux label.",
                [
                    field("level", string("SELinux level.")),
                    field("role", string("SELinux role.")),
                    field("type", string("SELinux type.")),
                    field("user", string("SELinux user.")),
                ],
            ),
        ),
        field(
            "windowsOptions",
            object(
                "Windows settings.",
                [
                    field("gmsaCredentialSpec", string("Inlined group managed service account.")),
                    field(
                        "gmsaCredentialSpecName",
                        string("Name of the account's credential spec."),
                    ),
                    field("hostProcess", boolean("Run as a host process.")),
                    field("runAsUserName", string("User name of the process.")),
                ],
            ),
        ),
    ]
}
