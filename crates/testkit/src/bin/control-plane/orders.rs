//! Orders to do something to a component, from whoever holds the pipe to stdin.

use std::time::Duration;

use serde_json::json;
use testkit::{assets::Component, process};

use crate::plane::{Plane, STOP_APISERVER};

impl Plane {
    /// Does what a line on stdin asks, `VERB COMPONENT`, and says in a line of JSON what came of it.
    pub(crate) async fn obey(&mut self, order: &str) -> String {
        let done = match order.split_once(' ') {
            Some((verb, name)) => self.do_to_component(verb, name).await,
            None => Err(format!("not an order: {order}")),
        };
        match done {
            Ok(()) => json!({"processes": self.processes()}).to_string(),
            Err(error) => json!({"error": error}).to_string(),
        }
    }

    async fn do_to_component(&mut self, verb: &str, name: &str) -> Result<(), String> {
        let component = Component::ALL
            .into_iter()
            .find(|component| component.name() == name && *component != Component::Kubectl)
            .ok_or_else(|| format!("no component is called {name}"))?;
        let index = self.children.iter().position(|(running, _)| *running == component);
        let Some(index) = index else {
            return match verb {
                "start" => self.start_component(component).await.map_err(|error| error.to_string()),
                _ => Err(format!("{name} does not run")),
            };
        };
        match verb {
            "stop" => {
                let (_, mut child) = self.children.swap_remove(index);
                process::terminate(&child);
                process::reap(&mut child, STOP_APISERVER).map_err(|error| error.to_string())?;
            }
            "kill" => {
                let (_, mut child) = self.children.swap_remove(index);
                process::reap(&mut child, Duration::ZERO).map_err(|error| error.to_string())?;
            }
            "pause" => process::pause(&self.children[index].1),
            "resume" => process::resume(&self.children[index].1),
            "start" => return Err(format!("{name} runs already")),
            _ => return Err(format!("not a verb: {verb}")),
        }
        Ok(())
    }
}
