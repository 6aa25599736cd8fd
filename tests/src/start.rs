//! Starting an operator where a failure is to be told and not to end the program.

use std::{io, time::Duration};

use testkit::{Error, try_eventually};

use crate::Running;

/// On a busy machine.
const READY: Duration = Duration::from_secs(60);

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
