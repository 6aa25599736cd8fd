//! The one way to wait for something: ask again until it holds, up to a deadline.

use std::{fmt::Display, time::Duration};

use tokio::time::Instant;

/// The first pause between two looks; each next one is longer, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Something that did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("{what}: not within {deadline:?} ({looks} looks); last seen: {last}")]
pub struct NotYet {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub deadline: Duration,
    /// How often it was looked at.
    pub looks: usize,
    /// What the last look showed.
    pub last: String,
}

/// Repeats `look` until it gives `Ok`; an `Err` means "not yet" and says what is there instead.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use std::time::Duration;
///
/// let mut count = 0;
/// let value = testkit::eventually("the count reaches 3", Duration::from_secs(5), async || {
///     count += 1;
///     if count >= 3 { Ok(count) } else { Err(format!("count is {count}")) }
/// })
/// .await;
/// assert_eq!(value, 3);
/// # });
/// ```
///
/// # Panics
///
/// At the deadline, with what was seen last.
pub async fn eventually<T, S, F>(what: &str, deadline: Duration, look: F) -> T
where
    S: Display,
    F: AsyncFnMut() -> Result<T, S>,
{
    match try_eventually(what, deadline, look).await {
        Ok(value) => value,
        Err(not_yet) => panic!("{not_yet}"),
    }
}

/// [`eventually`], with an error instead of a panic.
///
/// # Errors
///
/// At the deadline, with what was seen last.
pub async fn try_eventually<T, S, F>(what: &str, deadline: Duration, mut look: F) -> Result<T, NotYet>
where
    S: Display,
    F: AsyncFnMut() -> Result<T, S>,
{
    let until = Instant::now() + deadline;
    let mut pause = FIRST_PAUSE;
    let mut looks = 0;
    let mut last = "nothing".to_owned();
    loop {
        looks += 1;
        // A look that hangs must not hide what the one before it saw.
        match tokio::time::timeout_at(until, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => last = seen.to_string(),
            Err(_) => last = format!("{last} (the last look gave no answer)"),
        }
        if Instant::now() >= until {
            return Err(NotYet {
                what: what.to_owned(),
                deadline,
                looks,
                last,
            });
        }
        tokio::time::sleep_until((Instant::now() + pause).min(until)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::try_eventually;

    #[tokio::test(start_paused = true)]
    async fn the_last_state_is_in_the_error() {
        let mut looks = 0;
        let error = try_eventually("the door opens", Duration::from_secs(3), async || {
            looks += 1;
            if looks == 5 {
                std::future::pending::<()>().await;
            }
            Err::<(), _>(format!("closed at look {looks}"))
        })
        .await
        .unwrap_err();
        assert_eq!(error.looks, 5);
        let text = error.to_string();
        assert!(text.contains("the door opens") && text.contains("closed at look 4") && text.contains("no answer"));
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_a_look_even_without_time() {
        let value = try_eventually("now", Duration::ZERO, async || Ok::<_, &str>(7)).await;
        assert_eq!(value.unwrap(), 7);
    }
}
