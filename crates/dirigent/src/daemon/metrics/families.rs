//! Metrics of the table, with their samples, on their way to the library that writes them.

use dirigent_api::metrics::{Kind, Metric};
use prometheus_client::encoding::{
    CounterValueEncoder, DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, GaugeValueEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use std::fmt;

/// The value of a sample.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// Written with all its digits.
    Whole(u64),
    Real(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<u32> for Number {
    fn from(value: u32) -> Self {
        Self::Whole(value.into())
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl EncodeGaugeValue for Number {
    fn encode(&self, encoder: &mut GaugeValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => EncodeGaugeValue::encode(value, encoder),
            Self::Real(value) => EncodeGaugeValue::encode(value, encoder),
        }
    }
}

impl EncodeCounterValue for Number {
    fn encode(&self, encoder: &mut CounterValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => EncodeCounterValue::encode(value, encoder),
            Self::Real(value) => EncodeCounterValue::encode(value, encoder),
        }
    }
}

/// Takes metrics, one after the other.
pub struct Families<'a>(DescriptorEncoder<'a>);

impl<'a> Families<'a> {
    /// They are written by this.
    pub fn to(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// A metric without labels.
    pub fn one(&mut self, metric: &Metric<0>, value: impl Into<Number>) -> fmt::Result {
        self.put::<0, &str, _>(metric, [([], value)])
    }

    /// A metric with its samples: the labels' values, in the order of the table, and the value. Without any sample nothing is
    /// said of it.
    pub fn put<const N: usize, L: AsRef<str>, V: Into<Number>>(
        &mut self,
        metric: &Metric<N>,
        samples: impl IntoIterator<Item = ([L; N], V)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        // The library adds the suffix where a format has it.
        let (name, kind) = match metric.kind {
            Kind::Counter => (metric.name.strip_suffix("_total").unwrap_or(metric.name), MetricType::Counter),
            Kind::Gauge => (metric.name, MetricType::Gauge),
        };
        let mut family = self.0.encode_descriptor(name, metric.help, None, kind)?;
        for (values, value) in samples {
            let mut names = metric.labels.into_iter();
            let labels = values.each_ref().map(|value| (names.next().unwrap_or_default(), value.as_ref()));
            let (mut sample, value) = (family.encode_family(&labels)?, value.into());
            match metric.kind {
                Kind::Counter => sample.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
                Kind::Gauge => sample.encode_gauge(&value)?,
            }
        }
        Ok(())
    }
}
