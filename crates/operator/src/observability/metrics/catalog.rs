//! Where every metric is described once: what registers it here is also what the reference page and the checks read.

use std::{array, sync::atomic::AtomicU64};

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
        info::Info,
    },
    registry::{Metric, Registry},
};

/// A label and the values it may have.
#[derive(Clone, Copy)]
pub(crate) struct Label {
    pub(crate) name: &'static str,
    pub(crate) values: Values,
}

/// The values of a label: never the name of an object, so that the number of series has a bound.
#[derive(Clone, Copy)]
pub(crate) enum Values {
    /// One of these.
    Closed(fn() -> Vec<&'static str>),
    /// The same one for the life of the process, in words.
    Constant(#[cfg_attr(not(test), expect(dead_code, reason = "only the reference page reads it"))] &'static str),
}

impl Label {
    pub(crate) const fn closed(name: &'static str, values: fn() -> Vec<&'static str>) -> Self {
        Self {
            name,
            values: Values::Closed(values),
        }
    }

    pub(crate) const fn constant(name: &'static str, what: &'static str) -> Self {
        Self {
            name,
            values: Values::Constant(what),
        }
    }

    /// Whether the value is one of those described.
    fn may_be(self, value: &str) -> bool {
        match self.values {
            Values::Closed(values) => values().contains(&value),
            Values::Constant(_) => true,
        }
    }
}

/// The types of Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// What is said of a metric.
#[cfg(test)]
pub(crate) struct Description {
    /// As queries have it; of a histogram without `_bucket`, `_sum` and `_count`.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
    pub(crate) labels: Vec<Label>,
}

/// Takes in every metric.
#[derive(Default)]
pub(crate) struct Catalog {
    registry: Registry,
    #[cfg(test)]
    pub(crate) descriptions: Vec<Description>,
}

type Pairs<const N: usize> = [(&'static str, &'static str); N];

/// Metrics of one name that differ in their labels.
pub(crate) struct By<M, const N: usize, C = fn() -> M> {
    labels: [Label; N],
    family: Family<Pairs<N>, M, C>,
}

impl<M, const N: usize, C: Clone> Clone for By<M, N, C> {
    fn clone(&self) -> Self {
        Self {
            labels: self.labels,
            family: self.family.clone(),
        }
    }
}

pub(crate) type CounterBy<const N: usize> = By<Counter, N>;
pub(crate) type GaugeBy<const N: usize> = By<Gauge, N>;
pub(crate) type FloatGaugeBy<const N: usize> = By<FloatGauge, N>;
pub(crate) type HistogramBy<const N: usize> = By<Histogram, N, Buckets>;

pub(crate) type FloatGauge = Gauge<f64, AtomicU64>;
pub(crate) type FloatCounter = Counter<f64, AtomicU64>;

/// Makes histograms with these upper bounds.
#[derive(Clone, Copy)]
pub(crate) struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

impl<M, const N: usize, C> By<M, N, C>
where
    M: Clone,
    C: MetricConstructor<M>,
{
    /// The metric with these values of its labels, in the order in which the labels were given.
    pub(crate) fn with(&self, values: [&'static str; N]) -> M {
        let pairs = array::from_fn(|at| {
            let (label, value) = (self.labels[at], values[at]);
            debug_assert!(label.may_be(value), "`{value}` is no value of label {}", label.name);
            (label.name, value)
        });
        self.family.get_or_create_owned(&pairs)
    }
}

impl Catalog {
    /// The registry, when nothing more is to be described.
    pub(super) fn take_registry(&mut self) -> Registry {
        std::mem::take(&mut self.registry)
    }

    pub(crate) fn counter(&mut self, name: &'static str, help: &'static str) -> Counter {
        self.plain(name, Kind::Counter, help)
    }

    pub(crate) fn float_counter(&mut self, name: &'static str, help: &'static str) -> FloatCounter {
        self.plain(name, Kind::Counter, help)
    }

    pub(crate) fn counter_by<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [Label; N],
    ) -> CounterBy<N> {
        self.family(name, Kind::Counter, help, labels, Counter::default)
    }

    pub(crate) fn gauge(&mut self, name: &'static str, help: &'static str) -> Gauge {
        self.plain(name, Kind::Gauge, help)
    }

    pub(crate) fn float_gauge(&mut self, name: &'static str, help: &'static str) -> FloatGauge {
        self.plain(name, Kind::Gauge, help)
    }

    pub(crate) fn gauge_by<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [Label; N],
    ) -> GaugeBy<N> {
        self.family(name, Kind::Gauge, help, labels, Gauge::default)
    }

    pub(crate) fn float_gauge_by<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [Label; N],
    ) -> FloatGaugeBy<N> {
        self.family(name, Kind::Gauge, help, labels, FloatGauge::default)
    }

    /// `buckets` are upper bounds in ascending order; the one without bound is added.
    pub(crate) fn histogram_by<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [Label; N],
        buckets: &'static [f64],
    ) -> HistogramBy<N> {
        self.family(name, Kind::Histogram, help, labels, Buckets(buckets))
    }

    /// A plain histogram.
    pub(crate) fn histogram(&mut self, name: &'static str, help: &'static str, buckets: &'static [f64]) -> Histogram {
        let metric = Histogram::new(buckets.iter().copied());
        self.register(name, Kind::Histogram, help, &[], metric.clone());
        metric
    }

    /// A gauge that is always 1 and tells by its labels. `name` ends with `_info`.
    pub(crate) fn info<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [(Label, &'static str); N],
    ) {
        let described = labels.map(|(label, _)| label);
        let pairs = labels.map(|(label, value)| (label.name, value));
        self.register(name, Kind::Gauge, help, &described, Info::new(pairs));
    }

    fn plain<M: Metric + Clone + Default>(&mut self, name: &'static str, kind: Kind, help: &'static str) -> M {
        let metric = M::default();
        self.register(name, kind, help, &[], metric.clone());
        metric
    }

    fn family<M, const N: usize, C>(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &'static str,
        labels: [Label; N],
        constructor: C,
    ) -> By<M, N, C>
    where
        C: Clone + MetricConstructor<M>,
        Family<Pairs<N>, M, C>: Metric,
    {
        let family = Family::new_with_constructor(constructor);
        self.register(name, kind, help, &labels, family.clone());
        By { labels, family }
    }

    fn register(&mut self, name: &'static str, kind: Kind, help: &'static str, labels: &[Label], metric: impl Metric) {
        // The encoder adds what the type asks for.
        let bare = name.strip_suffix("_info").unwrap_or(name);
        let bare = match kind {
            Kind::Counter => bare.strip_suffix("_total").unwrap_or(bare),
            Kind::Gauge | Kind::Histogram => bare,
        };
        self.registry.register(bare, help, metric);
        #[cfg(test)]
        self.descriptions.push(Description {
            name,
            kind,
            help,
            labels: labels.to_vec(),
        });
        #[cfg(not(test))]
        let _ = labels;
    }
}
