//! Starting things where a failure is to be told and not to end the program.

use std::{io, time::Duration};

use testkit::{ControlPlane, Error, Options, try_eventually};

use crate::{Failure, Running, program::Interrupt};

/// On a busy machine.
const READY: Duration = Duration::from_secs(60);

/// How long an interrupted start may take to come to an end of its own.
const UNWIND: Duration = Duration::from_secs(30);

/// Starts a control plane. After a signal it waits a little, so that what was started is stopped in order.
///
/// # Errors
///
/// When it does not start, and after a signal.
pub async fn control_plane(interrupt: &mut Interrupt, options: Options) -> Result<ControlPlane, Failure> {
    let mut starting = tokio::spawn(ControlPlane::start(options));
    match interrupt.unless(&mut starting).await {
        Ok(started) => Ok(started.map_err(io::Error::other)??),
        Err(interrupted) => {
            // Building its programs takes longer; it then ends by itself once this process is gone.
            if let Ok(Ok(Ok(plane))) = tokio::time::timeout(UNWIND, starting).await {
                plane.stop().await?;
            }
            Err(interrupted.into())
        }
    }
}

/// Waits until the operator says that it is ready.
///
/// # Errors
///
/// When it ends before that, and at the deadline.
pub async fn ready(operator: &mut Running) -> Result<(), Error> {
    let ended = try_eventually("the operator is ready", READY, async || {
        if let Some(status) = operator.process.exited() {
            return Ok(Some(status));
        }
        match operator.probe("/readyz").await {
            Ok((200, _)) => Ok(None),
            Ok((status, body)) => Err(format!("/readyz answers {status}: {}", body.trim())),
            Err(error) => Err(format!("/readyz: {error}")),
        }
    });
    match ended.await? {
        None => Ok(()),
        Some(status) => Err(Error::Io {
            what: "the operator ended before it was ready".into(),
            source: io::Error::other(status.to_string()),
        }),
    }
}
