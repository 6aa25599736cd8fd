//! Many policies deleted at once: by the operator, and by the API server's garbage collection alone.

use std::{io::Write, time::Duration};

use tokio::time::Instant;

use super::plant::{Field, TEMPLATE, spawn_controller};
use crate::{Failure, policies::struck::Struck, report::Row, table::thousands};

/// Until the operator has left nothing behind.
const BAR_SECONDS: f64 = 5.0;
/// The same with faults and kills.
const STRUCK_SECONDS: f64 = 30.0;
const STOP: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
/// For what is left, whatever fails.
const DEADLINE: Duration = Duration::from_secs(900);

pub(super) async fn measure(out: &mut dyn Write, field: &Field<'_>, count: usize) -> Result<Vec<Row>, Failure> {
    field.emptied().await?;
    let mut rows = Vec::new();
    for alone in [false, true] {
        // Garbage collection leaves the admission policies that nobody uses: their template, which owns them, is there.
        let (by, until) = if alone {
            ("garbage collection alone", "no binding is left")
        } else {
            (
                "the operator",
                "neither a binding nor an unused admission policy is left",
            )
        };
        writeln!(out, "{} policies, deleted at once: {by} ...", thousands(count))?;
        let controller = field.controller().await?;
        field.plant(0..count).await?;
        field.in_force(count).await?;
        let running = if alone {
            controller.process.terminate(STOP).await?;
            None
        } else {
            Some(controller)
        };
        field.policies.delete_all().await?;
        let deleted = Instant::now();
        field.bindings_gone(PAUSE).await?;
        if !alone {
            field.policies.nothing_left_behind(DEADLINE).await?;
        }
        let row = Row::figure(
            format!("{} policies deleted at once, {by}: until {until}", thousands(count)),
            "s",
            deleted.elapsed().as_secs_f64(),
        );
        rows.push(if alone { row } else { row.at_most(BAR_SECONDS) });
        if let Some(controller) = running {
            controller.process.terminate(STOP).await?;
        }
    }
    Ok(rows)
}

/// The same while two of three writes fail and the operator is killed three times. Stops garbage collection for good.
pub(super) async fn measure_struck(out: &mut dyn Write, field: &Field<'_>, count: usize) -> Result<Vec<Row>, Failure> {
    field.emptied().await?;
    writeln!(
        out,
        "{} policies, deleted at once: faults and kills ...",
        thousands(count)
    )?;
    let mut struck = Struck::new(field.plane.kubeconfig_path(), &field.policies, spawn_controller).await?;
    field.policies.create_many(TEMPLATE, count, 20).await?;
    field.in_force(count).await?;
    let cleaned_up = struck.clean_up(field.plane, TEMPLATE, count, DEADLINE).await?;
    struck.faults.strike(false);
    struck.running.process.terminate(STOP).await?;
    let took = cleaned_up.took.as_secs_f64();
    let name = format!(
        "{} policies deleted at once, two of three writes fail, the operator is killed three times: until nothing is left",
        thousands(count)
    );
    Ok(vec![Row::figure(name, "s", took).at_most(STRUCK_SECONDS)])
}
