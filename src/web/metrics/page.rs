//! Metrics as text, in the form that Prometheus reads (OpenMetrics 1.0). Values of labels come from the program's own lists,
//! never from what somebody sent or named: a label that anybody can fill is a memory that anybody can fill.

use crate::telemetry::count::Durations;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt;

/// A metric's name without the suffix of its type, and what it is.
pub(super) type Named = (&'static str, &'static str);

/// What tells one sample of a metric from its like: label and value.
pub(super) type LabelPairs<'v, const N: usize> = [(&'static str, &'v str); N];

pub(super) struct Page<'a>(DescriptorEncoder<'a>);

impl<'a> Page<'a> {
    pub fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    fn begin(&mut self, (name, help): Named, kind: MetricType) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    /// `_total` is added to the name.
    pub fn counters<'v, const N: usize>(
        &mut self,
        named: Named,
        samples: impl IntoIterator<Item = (LabelPairs<'v, N>, f64)>,
    ) -> fmt::Result {
        let mut metric = self.begin(named, MetricType::Counter)?;
        for (labels, value) in samples {
            if N == 0 {
                metric.encode_counter::<NoLabelSet, f64, f64>(&value, None)?;
            } else {
                let mut sample = metric.encode_family(&labels)?;
                sample.encode_counter::<NoLabelSet, f64, f64>(&value, None)?;
            }
        }
        Ok(())
    }

    pub fn counter(&mut self, named: Named, value: Option<f64>) -> fmt::Result {
        self.counters(named, value.map(|value| ([], value)))
    }

    pub fn gauges<'v, const N: usize>(
        &mut self,
        named: Named,
        samples: impl IntoIterator<Item = (LabelPairs<'v, N>, f64)>,
    ) -> fmt::Result {
        let mut metric = self.begin(named, MetricType::Gauge)?;
        for (labels, value) in samples {
            if N == 0 {
                metric.encode_gauge(&value)?;
            } else {
                metric.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    /// Nothing where there is nothing to tell.
    pub fn gauge(&mut self, named: Named, value: Option<f64>) -> fmt::Result {
        self.gauges(named, value.map(|value| ([], value)))
    }

    pub fn durations<'v, const N: usize>(
        &mut self,
        named: Named,
        samples: impl IntoIterator<Item = (LabelPairs<'v, N>, &'static Durations)>,
    ) -> fmt::Result {
        let mut metric = self.begin(named, MetricType::Histogram)?;
        for (labels, durations) in samples {
            let counts = durations.counts();
            let all = counts.iter().map(|(_, count)| count).sum();
            if N == 0 {
                metric.encode_histogram::<NoLabelSet>(durations.seconds(), all, &counts, None)?;
            } else {
                let mut sample = metric.encode_family(&labels)?;
                sample.encode_histogram::<NoLabelSet>(durations.seconds(), all, &counts, None)?;
            }
        }
        Ok(())
    }
}

/// Counts are far below 2^53, up to which a floating-point number has every whole one.
#[expect(clippy::cast_precision_loss, reason = "the format has floating-point numbers only")]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}
