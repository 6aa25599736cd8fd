//! Memory of every role and of the API server, and the time a write of a service takes, against the number of policies.

use std::{io::Write, net::Ipv4Addr, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use testkit::{ControlPlane, Memory, Operator};
use tokio::time::Instant;

use super::plant::{Field, NAMESPACE, object, until};
use crate::{
    Failure, Running,
    bench::memory::settle::{Reading, settled_or_most},
    report::{Row, Spread},
    services,
    table::thousands,
    webhook::{FailurePolicy, Site, free_port},
};

/// Services of which the webhook is asked before its memory is read.
const REVIEWS: usize = 10;
/// Writes of which the median and the 99th percentile are told.
const WRITES: usize = 200;
const STOP: Duration = Duration::from_secs(60);
/// What the controller may take more with ten thousand policies than with none.
const MORE_MIB: f64 = 3.0;
/// How long the API server is left alone before its memory is read: Go gives pages back in the background.
const REST: Duration = Duration::from_secs(20);
/// A controller's first look at ten thousand policies, or a run of the audit over ten thousand services.
const DEADLINE: Duration = Duration::from_secs(1800);
const LOOK: Duration = Duration::from_millis(500);
/// Looks without a pass between them, after which a controller is taken to have ended what it had to do.
const CALM: u32 = 30;

/// One size.
struct Point {
    policies: f64,
    controller: f64,
    server: f64,
}

pub(super) async fn measure(out: &mut dyn Write, field: &Field<'_>, counts: &[usize]) -> Result<Vec<Row>, Failure> {
    let name = field.sets.name();
    let mut rows = Vec::new();
    let mut points: Vec<Point> = Vec::new();
    let mut made = 0;
    let address = free_port(Ipv4Addr::LOCALHOST.into())?;
    let site = Site::new(field.plane, address, FailurePolicy::Fail).await?;
    for &count in counts {
        writeln!(out, "{name}: {} policies ...", thousands(count))?;
        let at = format!("{name}, {} policies", thousands(count));
        // Each is told when it is known: the next may take an hour and fail.
        let mut tell = |row: Row| -> Result<(), Failure> {
            writeln!(out, "  {}", row.line())?;
            rows.push(row);
            Ok(())
        };
        let controller = field.controller().await?;
        let began = Instant::now();
        field.plant(made..count).await?;
        field.in_force(count).await?;
        let all = began.elapsed();
        if count > made {
            let name = format!("{at}: until the last {} are in force", thousands(count - made));
            tell(Row::figure(name, "s", all.as_secs_f64()))?;
        }
        made = count;
        looked_at(&controller, count).await?;
        let grown = rest(&controller.process).await?;
        let name = format!("{at}: controller that put them into force");
        memory(&name, grown).into_iter().try_for_each(&mut tell)?;
        end(controller).await?;

        let controller = field.controller().await?;
        looked_at(&controller, count).await?;
        let anew = rest(&controller.process).await?;
        let name = format!("{at}: controller started anew");
        memory(&name, anew).into_iter().try_for_each(&mut tell)?;
        end(controller).await?;

        let audit = field.audit().await?;
        audited(&audit).await?;
        let resident = rest(&audit.process).await?;
        memory(&format!("{at}: audit"), resident)
            .into_iter()
            .try_for_each(&mut tell)?;
        end(audit).await?;

        let resident = webhook(field, &site).await?;
        memory(&format!("{at}: webhook"), resident)
            .into_iter()
            .try_for_each(&mut tell)?;

        tokio::time::sleep(REST).await;
        let server = server_mib(field.plane)?;
        tell(Row::figure(format!("{at}: API server: rss"), "MiB", server))?;
        for row in writes(field, &at).await? {
            tell(row)?;
        }
        points.push(Point {
            policies: as_f64(count),
            // Whichever is more.
            controller: grown.settled.max(anew.settled),
            server,
        });
    }
    rows.extend(fits(&name, &points));
    Ok(rows)
}

/// Its memory at rest, or the most of a minute where it keeps working: passes over ten thousand policies take minutes.
pub(super) async fn rest(process: &Operator) -> Result<Reading, Failure> {
    settled_or_most(process).await.map_err(Failure::Unmet)
}

/// A replica of the webhook at rest after a few reviews.
async fn webhook(field: &Field<'_>, site: &Site<'_>) -> Result<Reading, Failure> {
    let replica = site.replica(site.address, &[]).await?;
    let tenant = &site.tenant.name;
    let api = services::api(field.client.clone(), tenant);
    let unstored = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    for number in 0..REVIEWS {
        let service = object(services::sklearn(&format!("reviewed-{number}"), tenant, None))?;
        api.create(&unstored, &service).await?;
    }
    let reviews = replica.metric("leanserve_webhook_reviews_total", &[]).await?;
    if reviews < as_f64(REVIEWS) {
        return Err(Failure::Unmet(format!(
            "the webhook was asked {reviews} times in {REVIEWS} writes"
        )));
    }
    let reading = rest(&replica.process).await?;
    replica.process.terminate(STOP).await?;
    Ok(reading)
}

/// Rows of a reading.
pub(super) fn memory(name: &str, reading: Reading) -> [Row; 3] {
    [
        Row::figure(format!("{name}: rss"), "MiB", reading.settled),
        Row::figure(
            format!("{name}: rss without pages of the program"),
            "MiB",
            reading.anonymous,
        ),
        Row::figure(format!("{name}: peak rss"), "MiB", reading.peak),
    ]
}

pub(super) async fn end(running: Running) -> Result<(), Failure> {
    running.process.terminate(STOP).await?;
    Ok(())
}

/// Waits until a controller has gone through so many policies since it was started, and begins no more passes: before that its
/// memory is not at rest.
async fn looked_at(running: &Running, count: usize) -> Result<(), Failure> {
    let success = ["result=\"success\""];
    let (mut seen, mut calm) = (0.0, 0);
    until(LOOK, DEADLINE, async || {
        let passes = running.metric("leanserve_policy_passes_total", &success).await?;
        let is_calm = passes >= as_f64(count) && passes <= seen;
        (seen, calm) = (passes, if is_calm { calm + 1 } else { 0 });
        Ok(
            (calm < CALM)
                .then(|| format!("the controller has ended {passes} passes over {count} policies and goes on")),
        )
    })
    .await
}

/// Waits until a run of the audit is over.
pub(super) async fn audited(running: &Running) -> Result<(), Failure> {
    until(LOOK, DEADLINE, async || {
        let runs = running.metric("leanserve_audit_runs_total", &[]).await?;
        Ok((runs < 1.0).then(|| "the audit has ended no run".to_owned()))
    })
    .await
}

fn server_mib(plane: &ControlPlane) -> Result<f64, Failure> {
    let processes = plane.processes();
    let pid = processes.get("kube-apiserver").copied();
    let pid = pid.ok_or_else(|| Failure::Unmet(format!("no kube-apiserver among {processes:?}")))?;
    #[allow(clippy::cast_precision_loss, reason = "no process has 2^53 KiB")]
    let resident = Memory::of(pid)?.resident_kib as f64;
    Ok(resident / 1024.0)
}

/// How long the creation of a service takes that every policy lets pass, and that of a `ConfigMap`, which no policy is about.
async fn writes(field: &Field<'_>, at: &str) -> Result<Vec<Row>, Failure> {
    let api = services::api(field.client.clone(), NAMESPACE);
    let [median, high] = timed(&format!("{at}: creation of a service"), async |number| {
        let service = object(services::sklearn(&format!("write-{number}"), NAMESPACE, None))?;
        api.create(&PostParams::default(), &service).await?;
        Ok(())
    })
    .await?;
    for number in 0..WRITES {
        api.delete(&format!("write-{number}"), &DeleteParams::default()).await?;
    }
    let api: Api<ConfigMap> = Api::namespaced(field.client.clone(), NAMESPACE);
    let [other_median, other_high] = timed(&format!("{at}: creation of a ConfigMap"), async |number| {
        let mut config_map = ConfigMap::default();
        config_map.metadata.name = Some(format!("write-{number}"));
        api.create(&PostParams::default(), &config_map).await?;
        Ok(())
    })
    .await?;
    for number in 0..WRITES {
        api.delete(&format!("write-{number}"), &DeleteParams::default()).await?;
    }
    Ok(vec![median, high, other_median, other_high])
}

/// The median and the 99th percentile of what takes place [`WRITES`] times, one after the other.
async fn timed(name: &str, write: impl AsyncFn(usize) -> Result<(), Failure>) -> Result<[Row; 2], Failure> {
    let mut times = Vec::with_capacity(WRITES);
    for number in 0..WRITES {
        let began = Instant::now();
        write(number).await?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    let spread = Spread::of(&times);
    Ok([
        Row::new(format!("{name}, median"), "ms", spread),
        Row::figure(format!("{name}, 99th percentile"), "ms", times[WRITES * 99 / 100]),
    ])
}

/// What a policy takes, by least squares, and the bar.
fn fits(name: &str, points: &[Point]) -> Vec<Row> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return Vec::new();
    };
    let slope = |value: fn(&Point) -> f64| {
        let count = as_f64(points.len());
        let mean = |of: &dyn Fn(&Point) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(&|point| point.policies), mean(&|point| value(point)));
        let above: f64 = points
            .iter()
            .map(|point| (point.policies - x) * (value(point) - y))
            .sum();
        let below: f64 = points.iter().map(|point| (point.policies - x).powi(2)).sum();
        1024.0 * above / below
    };
    if points.len() < 2 {
        return Vec::new();
    }
    vec![
        Row::figure(
            format!(
                "{name}: controller, from {} to {} policies",
                first.policies, last.policies
            ),
            "MiB",
            last.controller - first.controller,
        )
        .at_most(MORE_MIB),
        Row::figure(
            format!("{name}: controller, a policy"),
            "KiB",
            slope(|point| point.controller),
        ),
        Row::figure(
            format!("{name}: API server, a policy"),
            "KiB",
            slope(|point| point.server),
        ),
    ]
}

#[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52 policies")]
fn as_f64(count: usize) -> f64 {
    count as f64
}
