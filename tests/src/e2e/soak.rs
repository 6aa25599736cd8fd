//! Services and Secrets that come, change and go, for as long as one likes; memory must not grow.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use kube::api::DeleteParams;
use serde_json::json;

use super::{
    Cluster, operator, release,
    workload::{Room, as_f64, deleted},
};
use crate::{
    Failure,
    report::{Row, Spread},
    services,
};

/// Services there at a time.
const SERVICES: usize = 40;
/// With fewer, the interval says nothing.
const LEAST_SAMPLES: usize = 20;
/// MiB an hour that are taken for none.
const SLOPE_BAR: f64 = 0.5;
/// MiB by which what is resident goes up and down within minutes while just as much is held (seen: 0.5, with 4,500 services made and
/// removed; at rest after as many it was what it was before). So a slope says something only over [`LEAST_HOURS`], and a shorter
/// soak finds only what grows by more than this.
const WANDER: f64 = 1.0;
const LEAST_HOURS: f64 = 1.0;
/// How often in a row the load may fail: an API server that is slow for a moment must not take hours of samples with it.
const MOST_FAILURES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(10);
/// How often it tells how it stands: what ends a soak before its time must not take all that it found.
const TOLD_EVERY: Duration = Duration::from_secs(300);

/// What is soaked.
#[derive(Clone, Debug)]
pub struct Soak {
    /// For how long.
    pub length: Duration,
    /// In which mode Secrets are read: `auto`, `direct`, `lru` or `watch`.
    pub mode: String,
}

pub(super) async fn run(cluster: &Cluster, soak: &Soak) -> Result<Vec<Row>, Failure> {
    let room = Room::open(cluster, "soak").await?;
    // The mode watch needs rights that the others do without.
    release::install(cluster, &json!({"secretAccess": {"watch": soak.mode == "watch"}})).await?;
    operator::configure(
        cluster,
        &json!({"secretAccessMaxAge": "5s", "secretAccessMode": soak.mode}),
    )
    .await?;
    let pod = operator::pod(cluster).await?;
    let mut samples = Vec::new();
    let (started, mut round, mut failures, mut in_a_row) = (Instant::now(), 0, 0, 0);
    let mut told = started;
    while started.elapsed() < soak.length || samples.len() < LEAST_SAMPLES {
        // What is kept on purpose fills up first: the cache, and Events that may have to be counted for six minutes.
        let counts = started.elapsed() >= soak.length / 3;
        let turn = async {
            churn(cluster, &room, round).await?;
            Ok::<_, Failure>(if counts {
                Some(operator::settled(cluster, &pod).await?)
            } else {
                None
            })
        };
        match turn.await {
            Ok(resident) => {
                samples.extend(resident.map(|resident| (started.elapsed().as_secs_f64() / 3600.0, resident)));
                round += 1;
                in_a_row = 0;
                if told.elapsed() >= TOLD_EVERY {
                    told = Instant::now();
                    writeln!(
                        io::stderr(),
                        "soak, after {} s: {round} rounds, {failures} tried again, {}",
                        started.elapsed().as_secs(),
                        so_far(&samples)
                    )?;
                }
            }
            Err(error) if in_a_row == MOST_FAILURES => return Err(error),
            Err(error) => {
                let seconds = started.elapsed().as_secs();
                writeln!(io::stderr(), "soak, after {seconds} s: {error}; trying again")?;
                in_a_row += 1;
                failures += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    let read_so = operator::value(
        cluster,
        &pod,
        "leanserve_secret_reads_total",
        &[answered_by(&soak.mode)],
    )
    .await?;
    let (slope, low, high) = theil_sen(&samples).ok_or_else(|| Failure::Unmet("too few samples".to_owned()))?;
    // The definition of flat: the interval includes 0, or lies below the bar.
    let grows = if low <= 0.0 { 0.0 } else { high };
    let residents: Vec<f64> = samples.iter().map(|(_, resident)| *resident).collect();
    let hours = match (samples.first(), samples.last()) {
        (Some((first, _)), Some((last, _))) => last - first,
        _ => 0.0,
    };
    operator::configure(cluster, &json!({"secretAccessMaxAge": null, "secretAccessMode": null})).await?;
    room.close().await?;
    Ok(vec![
        Row::figure("soak: length", "min", started.elapsed().as_secs_f64() / 60.0),
        Row::figure("soak: rounds of 40 services made, 20 removed", "rounds", as_f64(round)),
        Row::figure("soak: rounds that were tried again", "rounds", f64::from(failures)),
        Row::figure(
            format!("soak: reads answered as only the mode {} does", soak.mode),
            "reads",
            read_so,
        )
        .at_least(1.0),
        Row::new("soak: resident, but for the first third", "MiB", Spread::of(&residents)),
        Row::figure(
            "soak: resident at the end",
            "MiB",
            residents.last().copied().unwrap_or_default(),
        ),
        Row::figure("soak: slope (Theil-Sen)", "MiB/h", slope),
        Row::figure("soak: its 95 % interval, low", "MiB/h", low),
        Row::figure("soak: its 95 % interval, high", "MiB/h", high),
        if hours < LEAST_HOURS {
            let name = "soak: most that it may have grown meanwhile, 0 when the interval includes 0";
            Row::figure(name, "MiB", grows * hours).at_most(WANDER)
        } else {
            let name = "soak: most that it may grow, 0 when the interval includes 0";
            Row::figure(name, "MiB/h", grows).at_most(SLOPE_BAR)
        },
        Row::figure("soak: restarts", "restarts", operator::restarts(cluster).await?).at_most(0.0),
    ])
}

/// The last sample and the slope until then, for one who watches.
fn so_far(samples: &[(f64, f64)]) -> String {
    match (samples.last(), theil_sen(samples)) {
        (Some((_, resident)), Some((slope, low, high))) => {
            format!("{resident:.2} MiB resident, slope {slope:.2} ({low:.2} to {high:.2}) MiB/h")
        }
        _ => "nothing that counts yet".to_owned(),
    }
}

/// Makes or changes all services and waits for their Deployments; then half of them go, with their Secrets. Tried again, it does
/// the same.
async fn churn(cluster: &Cluster, room: &Room<'_>, round: usize) -> Result<(), Failure> {
    room.services(SERVICES, 20_000, round).await?;
    let api = services::api(cluster.client.clone(), &room.name);
    let secrets = room.secrets();
    for number in 0..SERVICES / 2 {
        deleted(api.delete(&format!("model-{number}"), &DeleteParams::default()).await)?;
        deleted(
            secrets
                .delete(&format!("store-{number}"), &DeleteParams::default())
                .await,
        )?;
    }
    Ok(())
}

/// What a metric of reads says when they were made in this mode: with the rights for it, `watch` answers from a watch.
fn answered_by(mode: &str) -> &'static str {
    match mode {
        "direct" => "mode=\"direct\"",
        "lru" => "mode=\"lru\"",
        "watch" => "source=\"watch\"",
        _ => "mode=\"auto\"",
    }
}

/// The median of the slopes of all pairs, with its 95 % interval: the slopes whose ranks are 1.96 standard deviations of
/// Kendall's statistic about the middle. Source: Sen, Estimates of the regression coefficient based on Kendall's tau, 1968.
fn theil_sen(samples: &[(f64, f64)]) -> Option<(f64, f64, f64)> {
    let mut slopes = Vec::new();
    for (index, (x, y)) in samples.iter().enumerate() {
        slopes.extend(
            samples[index + 1..]
                .iter()
                .map(|(later, value)| (value - y) / (later - x)),
        );
    }
    slopes.retain(|slope| slope.is_finite());
    slopes.sort_by(f64::total_cmp);
    let count = as_f64(samples.len());
    let deviation = (count * (count - 1.0) * (2.0 * count + 5.0) / 18.0).sqrt();
    let half = 1.96 * deviation / 2.0;
    let middle = as_f64(slopes.len()) / 2.0;
    let at = |rank: f64| {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to the indices of a short list"
        )]
        let index = rank.clamp(0.0, as_f64(slopes.len().saturating_sub(1))) as usize;
        slopes.get(index).copied()
    };
    Some((at(middle)?, at((middle - half).floor())?, at((middle + half).ceil())?))
}

#[cfg(test)]
mod tests {
    use super::theil_sen;

    #[test]
    fn a_line_has_its_slope_and_noise_has_none() {
        let line: Vec<(f64, f64)> = (0..20).map(|x| (f64::from(x), 3.0 * f64::from(x))).collect();
        let (slope, low, high) = theil_sen(&line).expect("enough samples");
        assert!((slope - 3.0).abs() < 1e-9 && (low - 3.0).abs() < 1e-9 && (high - 3.0).abs() < 1e-9);
        let noise: Vec<(f64, f64)> = (0..20).map(|x| (f64::from(x), f64::from(x * 7 % 5))).collect();
        let (_, low, high) = theil_sen(&noise).expect("enough samples");
        assert!(low <= 0.0 && high >= 0.0, "{low} to {high}");
        assert_eq!(theil_sen(&[(0.0, 1.0)]), None);
    }
}
