//! What a purge drops goes back to the operating system, not only to the allocator.

use std::time::Duration;

use kube_secret_access::{AccessOptions, Mode, Purge, SecretAccess, SecretRef, Switch, Want};
use testkit::{eventually, fake_api::FakeApi};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SECRETS: usize = 400;
const BYTES: usize = 100_000;
/// Against a test that hangs: `.cargo/config.toml` has jemalloc give pages back after about a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .expect("a number of kB");
    1024 * kib.trim().parse::<usize>().expect("a number of kB")
}

#[tokio::test]
async fn a_purge_gives_memory_back_to_the_system() {
    let api = FakeApi::new();
    let secret = |number: usize| SecretRef::new("ns", &format!("s{number}")).expect("valid");
    for number in 0..SECRETS {
        api.put_secret("ns", &format!("s{number}"), &[("k", &vec![b'x'; BYTES])]);
    }
    let access = Switch::new(api.client(), AccessOptions::for_mode(Mode::Lru)).expect("valid options");
    for number in 0..SECRETS {
        access.read(&secret(number), Want::default()).await.expect("readable");
    }
    let full = resident();
    let purged = access.purge(Purge::All);
    assert!(purged.entries == SECRETS && purged.bytes > SECRETS * BYTES);
    eventually("four fifths of it are given back", PATIENCE, async || {
        // An allocator without a thread of its own gives back while it is used.
        access
            .read(&secret(0), Want::quorum())
            .await
            .map_err(|error| error.to_string())?;
        let given_back = full.saturating_sub(resident());
        if given_back > purged.bytes / 5 * 4 {
            Ok(())
        } else {
            Err(format!("{given_back} of {} bytes", purged.bytes))
        }
    })
    .await;
}
