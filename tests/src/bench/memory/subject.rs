//! What is measured.

/// A program in one configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// leanserve in mode direct.
    Direct,
    /// leanserve in mode lru.
    Lru,
    /// leanserve in mode auto, with the rights of the base.
    Auto,
    /// leanserve in mode auto, with the rights of the overlay watch.
    AutoWithWatch,
    /// A kube-rs reflector of all Secrets.
    Reflector,
}

impl Subject {
    /// In the order they are measured.
    pub(super) const ALL: [Self; 5] = [
        Self::Direct,
        Self::Lru,
        Self::Auto,
        Self::AutoWithWatch,
        Self::Reflector,
    ];

    /// In tables.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Lru => "lru",
            Self::Auto => "auto",
            Self::AutoWithWatch => "auto with watch",
            Self::Reflector => "kube-rs reflector",
        }
    }

    /// leanserve's mode; `None` for what is not leanserve.
    pub(super) const fn mode(self) -> Option<&'static str> {
        match self {
            Self::Direct => Some("direct"),
            Self::Lru => Some("lru"),
            Self::Auto | Self::AutoWithWatch => Some("auto"),
            Self::Reflector => None,
        }
    }

    /// The folder of `deploy/kustomize` whose rights it has.
    pub(super) const fn kustomization(self) -> &'static str {
        match self {
            Self::AutoWithWatch => "overlays/watch",
            Self::Direct | Self::Lru | Self::Auto | Self::Reflector => "base",
        }
    }
}

/// The memory of one process, in MiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::bench) struct Reading {
    /// Resident when it had come to rest (`VmRSS`).
    pub(in crate::bench) settled: f64,
    /// What it had written itself then, without pages of its program (`RssAnon`).
    pub(in crate::bench) anonymous: f64,
    /// The most that was ever resident (`VmHWM`).
    pub(in crate::bench) peak: f64,
}
