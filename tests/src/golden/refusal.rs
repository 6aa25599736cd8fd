//! Requests that were refused in the recording, mostly by `KServe`'s webhooks.
//!
//! No webhook runs here. The rules of leanserve's own definition may refuse in the webhook's words; what the API server lets through must be refused by the operator, in words that hold the recorded
//! ones, and is undone afterwards, as the recorded request left nothing behind.

use golden::Action;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::{cluster, kinds::kind, player::Player, view::Namespace};

/// What an object was before a request; none where it was not.
struct Before {
    kind: String,
    name: String,
    object: Option<DynamicObject>,
}

/// Makes the request and compares why it is refused.
pub(super) async fn expect(player: &mut Player<'_>, action: &Action, file: &str) -> Result<(), String> {
    let message = player.case.refusal(file).map_err(|error| error.to_string())?;
    let recorded = reason(&message).to_owned();
    let path = file.strip_suffix(".txt").unwrap_or(file).to_owned();
    let mut before = Vec::new();
    match request(player, action, &mut before).await? {
        // A rule of a definition names the field and the value before the rule's own words.
        Some(found) if found.contains(&recorded) => {}
        Some(found) => player.tell(&path, json!(recorded), json!(format!("refused: {found}"))),
        None => {
            player.acted();
            let content = player.settle(Some(&path)).await;
            let said = before.iter().filter(|one| one.kind == "InferenceService");
            let said: Vec<&str> = said.filter_map(|one| condition(&content, &one.name)).collect();
            if !said.iter().any(|text| text.contains(&recorded)) {
                player.tell(
                    &path,
                    json!(recorded),
                    json!(format!("admitted; PredictorReady: {}", said.join("; "))),
                );
            }
        }
    }
    undo(player, before).await?;
    player.acted();
    player.settle(None).await;
    Ok(())
}

/// Makes the request; why the API server refused it, if it did.
async fn request(player: &Player<'_>, action: &Action, before: &mut Vec<Before>) -> Result<Option<String>, String> {
    let (client, namespace) = (&player.cluster.client, &player.case.namespace);
    match action {
        Action::Apply(file) => {
            for object in player.case.input(file).map_err(|error| error.to_string())? {
                let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
                let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
                match cluster::put(client, namespace, object).await {
                    Ok(object) => before.push(Before { kind, name, object }),
                    Err(error) => return refused(error),
                }
            }
        }
        Action::Patch(patch) => {
            let api = kind(&patch.kind)?.api(client, namespace);
            let object = api.get_opt(&patch.name).await.map_err(|error| error.to_string())?;
            let patched = api
                .patch(&patch.name, &PatchParams::default(), &Patch::Merge(&patch.body))
                .await;
            match patched {
                Ok(_) => before.push(Before {
                    kind: patch.kind.clone(),
                    name: patch.name.clone(),
                    object,
                }),
                Err(error) => return refused(error),
            }
        }
        Action::Delete { .. }
        | Action::Config(_)
        | Action::Ready(_)
        | Action::PodStatus { .. }
        | Action::RouteStatus(_) => return Err("only apply and patch can be refused".to_owned()),
    }
    Ok(None)
}

fn refused(error: kube::Error) -> Result<Option<String>, String> {
    match error {
        kube::Error::Api(status) => Ok(Some(status.message)),
        error => Err(error.to_string()),
    }
}

async fn undo(player: &Player<'_>, before: Vec<Before>) -> Result<(), String> {
    let (client, namespace) = (&player.cluster.client, &player.case.namespace);
    for Before {
        kind: name,
        name: object,
        object: earlier,
    } in before.into_iter().rev()
    {
        match earlier {
            // With all that hangs on it: a next object of its name must not meet it.
            None => cluster::remove(client, kind(&name)?, namespace, &object, &DeleteParams::foreground()).await?,
            Some(earlier) => {
                let earlier = serde_json::to_value(earlier).map_err(|error| error.to_string())?;
                let put = cluster::put(client, namespace, earlier).await;
                put.map_err(|error| format!("{name} {object}: {error}"))?;
            }
        }
    }
    Ok(())
}

/// The message of a service's condition.
fn condition<'a>(content: &'a Namespace, service: &str) -> Option<&'a str> {
    let status = &content.get("InferenceService", service)?["status"];
    let conditions = status["conditions"].as_array()?;
    let ready = conditions
        .iter()
        .find(|condition| condition["type"] == "PredictorReady")?;
    ready["message"].as_str()
}

/// A message without the API server's own words before it: the webhook's name, or the object's. With several reasons the
/// server puts them into brackets.
fn reason(message: &str) -> &str {
    match message.split_once("denied the request: ") {
        Some((webhook, text)) if webhook.starts_with("admission webhook ") => return text,
        _ => {}
    }
    match message.split_once(" is invalid: ") {
        Some((object, text)) if object.starts_with("InferenceService.serving.kserve.io ") => text,
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn the_servers_words_are_not_part_of_a_reason() {
        let webhook = "admission webhook \"a.b\" denied the request: no: denied the request: x is invalid: y";
        assert_eq!(reason(webhook), "no: denied the request: x is invalid: y");
        let schema = "InferenceService.serving.kserve.io \"m\" is invalid: spec.a: denied the request: x";
        assert_eq!(reason(schema), "spec.a: denied the request: x");
        assert_eq!(reason("namespaces \"x\" not found"), "namespaces \"x\" not found");
    }
}
