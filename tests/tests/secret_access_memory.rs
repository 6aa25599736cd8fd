//! What the cache says it takes beside what the allocator gives back when the cache is dropped.
//!
//! One test, because the figures are of the whole thread: reads, the cache and the API server's fake share it.

use std::sync::{Arc, Mutex, PoisonError};

use kube_secret_access::{
    AccessOptions, CacheSize, Mode, Probe, ReadErrorKind, SecretAccess, SecretRef, SecretSnapshot, Switch, Want,
};
use testkit::fake_api::FakeApi;
use tikv_jemalloc_ctl::thread::{allocatedp, deallocatedp};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How far the account may be off, in percent.
const TOLERANCE: usize = 10;

/// What this thread holds. Both counters are in bytes as the allocator rounds them, and include what it has cached.
fn held_by_this_thread() -> i64 {
    let read = |counter: u64| i64::try_from(counter).expect("far less was ever allocated");
    let allocated = allocatedp::read().expect("jemalloc is built with statistics");
    let deallocated = deallocatedp::read().expect("jemalloc is built with statistics");
    read(allocated.get()) - read(deallocated.get())
}

fn close(what: &str, accounted: usize, real: usize) {
    let most = real * TOLERANCE / 100;
    assert!(
        accounted.abs_diff(real) <= most,
        "{what}: {accounted} bytes are accounted for, {real} were allocated"
    );
}

#[derive(Default)]
struct LastSize(Mutex<CacheSize>);

impl Probe for LastSize {
    fn cache_size(&self, size: CacheSize) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = size;
    }
}

/// So many Secrets, alike.
struct Shape {
    what: &'static str,
    secrets: usize,
    namespaces: usize,
    keys: usize,
    /// Of each value.
    bytes: usize,
    annotations: usize,
}

const SHAPES: [Shape; 7] = [
    Shape {
        what: "one key of 16 B",
        secrets: 2000,
        namespaces: 1,
        keys: 1,
        bytes: 16,
        annotations: 0,
    },
    Shape {
        what: "4 kB in three keys",
        secrets: 2000,
        namespaces: 20,
        keys: 3,
        bytes: 1365,
        annotations: 0,
    },
    Shape {
        what: "100 kB",
        secrets: 200,
        namespaces: 20,
        keys: 1,
        bytes: 100_000,
        annotations: 0,
    },
    Shape {
        what: "twenty small keys",
        secrets: 500,
        namespaces: 5,
        keys: 20,
        bytes: 24,
        annotations: 0,
    },
    Shape {
        what: "annotated",
        secrets: 500,
        namespaces: 5,
        keys: 2,
        bytes: 100,
        annotations: 14,
    },
    Shape {
        what: "a namespace each",
        secrets: 1000,
        namespaces: 1000,
        keys: 1,
        bytes: 100,
        annotations: 0,
    },
    Shape {
        what: "absences",
        secrets: 2000,
        namespaces: 20,
        keys: 0,
        bytes: 0,
        annotations: 0,
    },
];

impl Shape {
    fn secret(&self, number: usize) -> SecretRef {
        let namespace = format!("team-{}", number % self.namespaces);
        SecretRef::new(&namespace, &format!("credentials-{number}")).expect("valid")
    }

    fn create(&self, api: &FakeApi) {
        let value = vec![b'x'; self.bytes];
        let keys: Vec<String> = (0..self.keys).map(|key| format!("SOME_KEY_{key:02}")).collect();
        let data: Vec<(&str, &[u8])> = keys.iter().map(|key| (key.as_str(), value.as_slice())).collect();
        for number in 0..self.secrets {
            let secret = self.secret(number);
            api.put_secret(secret.namespace(), secret.name(), &data);
            if self.annotations > 0 {
                let mut object = api
                    .stored("secrets", secret.namespace(), secret.name())
                    .expect("just put");
                for annotation in 0..self.annotations {
                    object["metadata"]["annotations"][format!("example.com/note-{annotation:02}")] = "some text".into();
                }
                api.put(object);
            }
        }
    }

    async fn check(&self) {
        let api = FakeApi::new();
        if self.keys > 0 {
            self.create(&api);
        }
        let mut options = AccessOptions::for_mode(Mode::Lru);
        options.lru.max_absent = self.secrets;
        let probe = Arc::new(LastSize::default());
        let access = Switch::with_probe(api.client(), options.clone(), probe.clone()).expect("valid options");
        // Shared with what the access remembers of versions, which stays: counted here instead.
        let before = held_by_this_thread();
        let mut secrets = Vec::with_capacity(self.secrets);
        secrets.extend((0..self.secrets).map(|number| self.secret(number)));
        let list = i64::try_from(secrets.capacity() * size_of::<SecretRef>()).expect("it is short");
        let names = held_by_this_thread() - before - list;
        for secret in &secrets {
            match access.read(secret, Want::default()).await {
                Ok(snapshot) => assert_eq!(snapshot.keys().len(), self.keys),
                Err(error) => assert_eq!((error.kind(), self.keys), (ReadErrorKind::NotFound, 0)),
            }
        }
        let size = *probe.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(size.entries, self.secrets, "{}", self.what);
        let before = held_by_this_thread();
        options.mode = Mode::Direct;
        access.set(options).expect("valid options");
        let freed = before - held_by_this_thread();
        let real = usize::try_from(freed + names).expect("a cache was dropped");
        close(self.what, size.bytes, real);
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_are_accounted_for_as_the_allocator_does() {
    // jemalloc makes its own preparations at first.
    drop(vec![0_u8; 1 << 20]);
    for shape in &SHAPES {
        shape.check().await;
    }
    for (keys, bytes) in [
        (0, 0),
        (1, 0),
        (1, 16),
        (3, 1365),
        (11, 40),
        (12, 40),
        (40, 10),
        (1, 1 << 20),
    ] {
        let before = held_by_this_thread();
        let snapshots: Vec<Arc<SecretSnapshot>> = (0..100).map(|number| snapshot(number, keys, bytes)).collect();
        let list = snapshots.capacity() * size_of::<Arc<SecretSnapshot>>();
        let real = usize::try_from(held_by_this_thread() - before).expect("snapshots were made") - list;
        let accounted = snapshots.iter().map(|snapshot| snapshot.cost()).sum();
        close(&format!("snapshots with {keys} keys of {bytes} bytes"), accounted, real);
    }
}

fn snapshot(number: usize, keys: usize, bytes: usize) -> Arc<SecretSnapshot> {
    let secret = SecretRef::new("models", &format!("credentials-{number}")).expect("valid");
    let builder = SecretSnapshot::builder(secret).uid("0b2f9c5e-95c1-4c5e-8f3c-3f2a3a3c8f11");
    let builder = (0..keys).fold(builder, |builder, key| {
        builder.data(&format!("key-{key:03}"), vec![7; bytes])
    });
    builder.build().into()
}
