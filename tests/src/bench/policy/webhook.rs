//! The webhook, asked by many at once within a small limit on memory.

use std::io::Write;

use testkit::ControlPlane;

use crate::{
    Failure,
    cgroup::Cgroup,
    report::Row,
    running::metric,
    services,
    table::thousands,
    webhook::{Burst, FailurePolicy, Site, free_port},
};

/// What the container may use.
const LIMIT: u64 = 64 << 20;
const MIB: f64 = 1024.0 * 1024.0;
/// Bytes of a body.
const BODY: usize = 20_000;
/// Over which reviews come; each may have 4 streams at a time, with a window of 32 KiB.
const CONNECTIONS: usize = 32;
/// Of a review that was served, above its look-ups.
const BAR_MILLISECONDS: f64 = 50.0;

/// Sends so many reviews at once; the control plane has the definitions of `deploy/`.
pub(super) async fn measure(out: &mut dyn Write, plane: &ControlPlane, reviews: usize) -> Result<Vec<Row>, Failure> {
    writeln!(out, "{} reviews at once over HTTP/2 ...", thousands(reviews))?;
    let address = free_port(std::net::Ipv4Addr::LOCALHOST.into())?;
    let site = Site::new(plane, address, FailurePolicy::Ignore).await?;
    let tenant = site.tenant.name.clone();
    let secret = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tokens", "namespace": tenant},
        "stringData": {"hf": "value"},
    });
    plane.apply_yaml(&services::list(&[secret])).await?;
    let group = Cgroup::limited(LIMIT)?;
    let replica = site.limited(address, &group, &[]).await?;
    let burst = Burst {
        address,
        authorities: site.authorities().await?,
        reviews,
        connections: CONNECTIONS,
        body: BODY,
        namespace: tenant,
        secret: ("tokens".to_owned(), "hf".to_owned()),
    };
    let answers = burst.send().await?;
    if let Some(why) = &answers.first_loss {
        writeln!(out, "lost, the first because of: {why}")?;
    }
    let page = replica.metrics().await?;
    let name = |what: &str| format!("webhook, {} reviews at once with 64 MiB: {what}", thousands(reviews));
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let count = |what: &str, number: usize| Row::figure(name(what), "", number as f64);
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let peak = group.peak()? as f64 / MIB;
    // Of both parts 99.5 % are at most this, so of the sum 99 %.
    let over = quantile(&page, "wait", 0.995).zip(quantile(&page, "serve", 0.995));
    let above = name("p99 of those checked, above the look-up");
    let above = match over {
        Some((wait, serve)) => Row::figure(above, "ms", (wait + serve) * 1000.0),
        None => Row::unmeasured(above, "no review was checked"),
    };
    replica.process.terminate(std::time::Duration::from_secs(60)).await?;
    let kills = usize::try_from(group.kills()?).unwrap_or(usize::MAX);
    Ok(vec![
        count("killed for memory", kills).at_most(0.0),
        count("without an answer", answers.lost).at_most(0.0),
        count("checked", answers.allowed + answers.told).at_least(1.0),
        count("told that they were not checked", answers.unchecked),
        above.at_most(BAR_MILLISECONDS),
        Row::figure(name("until the last answer"), "s", answers.took.as_secs_f64()),
        Row::figure(name("peak of the control group, files included"), "MiB", peak),
    ])
}

/// The upper bound of the bucket that a part of all reviews is within, in seconds; none where no review is counted.
fn quantile(page: &str, stage: &str, part: f64) -> Option<f64> {
    let stage = format!("stage=\"{stage}\"");
    let all = metric(page, "leanserve_webhook_stage_seconds_count", &[&stage]);
    if all < 1.0 {
        return None;
    }
    let buckets = page.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let of_stage = series.starts_with("leanserve_webhook_stage_seconds_bucket") && series.contains(&stage);
        let bound = series.split_once("le=\"")?.1.split_once('"')?.0;
        let bound = if bound == "+Inf" {
            f64::INFINITY
        } else {
            bound.parse().ok()?
        };
        (of_stage && value.parse::<f64>().ok()? >= all * part).then_some(bound)
    });
    Some(buckets.fold(f64::INFINITY, f64::min))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the webhook has it, with these counts in its buckets.
    fn page(counts: [u32; 4]) -> String {
        let buckets = ["0.01", "0.025", "0.05", "+Inf"].into_iter().zip(counts);
        let buckets = buckets.map(|(bound, count)| {
            format!("leanserve_webhook_stage_seconds_bucket{{le=\"{bound}\",stage=\"wait\"}} {count}\n")
        });
        let all = counts[3];
        buckets.collect::<String>() + &format!("leanserve_webhook_stage_seconds_count{{stage=\"wait\"}} {all}\n")
    }

    #[test]
    fn the_bucket_that_enough_are_in() {
        let page = page([90, 99, 100, 100]);
        for (part, bound) in [(0.5, 0.01), (0.99, 0.025), (0.995, 0.05)] {
            assert_eq!(quantile(&page, "wait", part), Some(bound), "{part}");
        }
    }

    #[test]
    fn of_no_review_there_is_no_quantile() {
        for page in [String::new(), page([0; 4])] {
            assert_eq!(quantile(&page, "wait", 0.995), None, "{page}");
        }
    }
}
