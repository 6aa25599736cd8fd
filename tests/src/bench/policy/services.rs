//! The audit's memory against the number of services.

use std::io::Write;

use tokio::time::Instant;

use super::{
    capacity::{audited, end, memory, rest},
    plant::Field,
};
use crate::{Failure, report::Row, table::thousands};

/// Policies in force meanwhile.
const POLICIES: usize = 87;
/// What the audit may take more with the last number of services than with the first.
const MORE_MIB: f64 = 2.0;

pub(super) async fn measure(out: &mut dyn Write, field: &Field<'_>, counts: &[usize]) -> Result<Vec<Row>, Failure> {
    let mut rows: Vec<Row> = Vec::new();
    let mut resident = Vec::new();
    let mut made = 0;
    // Before the policies, which would refuse every other one.
    for &count in counts {
        field.emptied().await?;
        writeln!(out, "{} services are audited ...", thousands(count))?;
        field.services(made..count).await?;
        made = count;
        let controller = field.controller().await?;
        field.plant(0..POLICIES).await?;
        field.in_force(POLICIES).await?;
        end(controller).await?;
        let began = Instant::now();
        let audit = field.audit().await?;
        audited(&audit).await?;
        let took = began.elapsed().as_secs_f64();
        let reading = rest(&audit.process).await?;
        end(audit).await?;
        let at = format!("{} services, {POLICIES} policies", thousands(count));
        rows.push(Row::figure(format!("{at}: a run of the audit"), "s", took));
        rows.extend(memory(&format!("{at}: audit"), reading));
        resident.push(reading.peak);
    }
    if let (Some(first), Some(last)) = (resident.first(), resident.last()) {
        rows.push(
            Row::figure(
                "audit: peak rss, from the least to the most services",
                "MiB",
                last - first,
            )
            .at_most(MORE_MIB),
        );
    }
    field.policies.delete_all().await?;
    for row in &rows {
        writeln!(out, "  {}", row.line())?;
    }
    Ok(rows)
}
