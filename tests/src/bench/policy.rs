//! Policies: what thousands of them take of each role's memory and of the API server's, what they cost a write of a service,
//! how fast they are gone, and how fast what others change is back.
//!
//! One control plane for each shape: twenty distinct sets of parameters, which the API server compiles twenty times, and as many
//! sets as policies. The roles run as processes beside it, with all rights.

mod capacity;
mod clean_up;
mod drift;
mod plant;
mod services;
mod webhook;

use std::io::{self, Write};

use testkit::Options;

use self::plant::Field;
pub use self::plant::Sets;
use crate::{
    Failure, Running,
    program::Interrupt,
    report::{Report, Row, measured_versions},
    start,
};

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Size {
    /// Policies, in ascending order.
    pub policies: Vec<usize>,
    /// Policies that are deleted at once; when it is 0 none are, and no binding is touched by hand.
    pub deleted: usize,
    /// Services that are audited, in ascending order.
    pub services: Vec<usize>,
    /// Reviews that the webhook is asked for at once.
    pub reviews: usize,
}

/// Measures, and stops everything before it returns. Says on `out` what it does.
///
/// # Errors
///
/// What kept it from measuring.
pub async fn run(out: &mut dyn Write, size: &Size, sets: &[Sets]) -> Result<Report, Failure> {
    let mut interrupt = Interrupt::listen()?;
    writeln!(out, "Building the operator, unless it is built ...")?;
    let built = tokio::task::spawn_blocking(Running::binary);
    interrupt.unless(built).await?.map_err(io::Error::other)??;
    let mut versions = measured_versions(&["k8s-openapi", "kube", "leanserve", "tikv-jemallocator"]);
    let mut rows: Vec<Row> = Vec::new();
    for (index, sets) in sets.iter().enumerate() {
        writeln!(out, "Starting a control plane ...")?;
        let plane = start::control_plane(&mut interrupt, Options::bare()).await?;
        let version = plane.server_version().unwrap_or_default().trim_start_matches('v');
        versions.insert("kubernetes".to_owned(), version.to_owned());
        let measured = async {
            let field = Field::new(&plane, *sets).await?;
            let mut rows = capacity::measure(out, &field, &size.policies).await?;
            if index == 0 && size.deleted > 0 {
                rows.extend(clean_up::measure(out, &field, size.deleted).await?);
                rows.extend(drift::measure(out, &field).await?);
            }
            if index == 0 && !size.services.is_empty() {
                rows.extend(services::measure(out, &field, &size.services).await?);
            }
            if index == 0 && size.reviews > 0 {
                rows.extend(webhook::measure(out, &plane, size.reviews).await?);
            }
            // Last: it stops garbage collection.
            if index == 0 && size.deleted > 0 {
                rows.extend(clean_up::measure_struck(out, &field, size.deleted).await?);
            }
            Ok::<_, Failure>(rows)
        };
        let measured = interrupt.unless(Box::pin(measured)).await;
        let stopped = plane.stop().await;
        rows.extend(measured??);
        stopped?;
    }
    Ok(Report::new("policy", versions, rows))
}
