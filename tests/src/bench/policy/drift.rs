//! What somebody changes or deletes by hand, and how fast the operator has it back.

use std::{io::Write, time::Duration};

use isvc_core::policy::names;
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::Instant;

use super::{
    capacity::end,
    plant::{Field, until},
};
use crate::{Failure, report::Row};

/// Until a binding is as it was.
const BAR_SECONDS: f64 = 2.0;
/// Each of another policy: many repairs of one policy are a fight, which the operator backs off from.
const TIMES: usize = 5;
const IN_A_ROW: usize = 2;
const PAUSE: Duration = Duration::from_millis(20);
/// For a binding that does not come back, and for what is left at the end.
const DEADLINE: Duration = Duration::from_secs(120);

/// What is done to a binding.
#[derive(Clone, Copy)]
enum ByHand {
    /// It no longer refuses.
    Edited,
    Deleted,
}

pub(super) async fn measure(out: &mut dyn Write, field: &Field<'_>) -> Result<Vec<Row>, Failure> {
    field.emptied().await?;
    let controller = field.controller().await?;
    field.plant(0..2 * TIMES).await?;
    field.in_force(2 * TIMES).await?;
    let mut rows = Vec::new();
    for (by_hand, done, first) in [(ByHand::Edited, "edited", 0), (ByHand::Deleted, "deleted", TIMES)] {
        writeln!(out, "Bindings are {done} by hand ...")?;
        let mut slowest = Duration::ZERO;
        for number in first..first + TIMES {
            let binding = names::binding(&format!("p{number:04}"));
            // And again at once, while the operator waits to see that the first one is in force.
            for _ in 0..IN_A_ROW {
                slowest = slowest.max(until_back(&field.policies.bindings, &binding, by_hand).await?);
            }
        }
        let name = format!(
            "a binding {done} by hand, {IN_A_ROW} times in a row: until it is as before, the slowest of {}",
            TIMES * IN_A_ROW
        );
        rows.push(Row::figure(name, "s", slowest.as_secs_f64()).at_most(BAR_SECONDS));
    }
    field.policies.delete_all().await?;
    field.policies.nothing_left_behind(DEADLINE).await?;
    end(controller).await?;
    Ok(rows)
}

/// From the answer to the write until the binding says again what it said, or another one in its place does.
async fn until_back(bindings: &Api<DynamicObject>, name: &str, by_hand: ByHand) -> Result<Duration, Failure> {
    let before = bindings.get(name).await?;
    match by_hand {
        ByHand::Edited => {
            let weaker = Patch::Merge(json!({"spec": {"validationActions": ["Audit"]}}));
            bindings.patch(name, &PatchParams::default(), &weaker).await.map(drop)?;
        }
        ByHand::Deleted => bindings.delete(name, &DeleteParams::default()).await.map(drop)?,
    }
    let began = Instant::now();
    until(PAUSE, DEADLINE, async || {
        let live = bindings.get_opt(name).await?;
        // A version that is the same would mean that nothing was done to it.
        let is_back = live.is_some_and(|live| {
            live.data["spec"] == before.data["spec"]
                && live.metadata.resource_version != before.metadata.resource_version
        });
        Ok((!is_back).then(|| format!("{name} is not back")))
    })
    .await?;
    Ok(began.elapsed())
}
