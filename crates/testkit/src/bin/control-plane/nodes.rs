//! Simulated nodes, and what kwok makes of the Pods on them.

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use serde_json::json;

/// kwok's rules. A node becomes Ready; a Pod on it gets addresses, completes its init containers and becomes Running
/// and Ready, in one step; a Job's Pod then succeeds; a Pod that is to be deleted is deleted.
pub(crate) const STAGES: &str = include_str!("stages.yaml");

/// Creates the nodes. They are big enough for everything that a test could schedule.
pub(crate) async fn create(client: &kube::Client, count: u16) -> kube::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    for number in 1..=count {
        let name = format!("node-{number}");
        let room = json!({
            "cpu": "100k",
            "memory": "1Pi",
            "ephemeral-storage": "1Pi",
            "pods": "10k",
            "nvidia.com/gpu": "10k",
        });
        let node = Node {
            metadata: ObjectMeta {
                labels: Some(
                    [
                        ("kubernetes.io/arch", "amd64"),
                        ("kubernetes.io/hostname", name.as_str()),
                        ("kubernetes.io/os", "linux"),
                        ("type", "kwok"),
                    ]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
                ),
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            status: serde_json::from_value(json!({
                "addresses": [
                    {"type": "InternalIP", "address": format!("10.2.{}.{}", number / 250, number % 250 + 1)},
                    {"type": "Hostname", "address": name},
                ],
                "allocatable": room,
                "capacity": room,
            }))
            .expect("the status above is one of a Node"),
            ..Node::default()
        };
        nodes.create(&PostParams::default(), &node).await?;
    }
    Ok(())
}

/// How many nodes are Ready and take Pods.
pub(crate) async fn ready(client: &kube::Client) -> kube::Result<usize> {
    let nodes: Api<Node> = Api::all(client.clone());
    let list = nodes.list(&kube::api::ListParams::default()).await?;
    Ok(list.items.iter().filter(|node| is_ready(node)).count())
}

fn is_ready(node: &Node) -> bool {
    let ready = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .is_some_and(|conditions| {
            conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        });
    // A new node is tainted until the node controller has seen it Ready.
    let open = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_ref())
        .is_none_or(Vec::is_empty);
    ready && open
}
