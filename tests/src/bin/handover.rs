//! Beside a real `KServe` controller, and from one to the other and back: `make handover`.

use std::process::ExitCode;

use leanserve_tests::{Failure, handover, program, start};
use testkit::Options;

fn main() -> ExitCode {
    let checked = program::block_on(check());
    program::ended("The hand-over", checked.map(|()| ExitCode::SUCCESS))
}

async fn check() -> Result<(), Failure> {
    let mut interrupt = program::Interrupt::listen()?;
    let plane = start::control_plane(&mut interrupt, Options::default()).await?;
    let result = interrupt.unless(handover::run(&plane)).await;
    let stopped = plane.stop().await;
    result??;
    Ok(stopped?)
}
