//! Repeated measurements and what is said of them.

/// Measurements of one thing, one per run.
#[derive(Clone, Debug, Default)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    /// The value below which the share `q` of the samples lies.
    pub fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            count => {
                // Interpolated, so that the median of two is their middle.
                let place = q * (count - 1) as f64;
                let (low, high) = (place.floor() as usize, place.ceil() as usize);
                sorted[low] + (sorted[high] - sorted[low]) * place.fract()
            }
        }
    }

    /// The median.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Each sample divided by the other's of the same run.
    pub fn ratio(&self, other: &Samples) -> Samples {
        self.with(other, |a, b| a / b)
    }

    /// Each sample less the other's of the same run.
    pub fn less(&self, other: &Samples) -> Samples {
        self.with(other, |a, b| a - b)
    }

    fn with(&self, other: &Samples, op: impl Fn(f64, f64) -> f64) -> Samples {
        let pairs = self.0.iter().zip(&other.0);
        Samples(pairs.map(|(&a, &b)| op(a, b)).collect())
    }

    /// The quartiles: where the middle half of the samples lies.
    pub fn quartiles(&self) -> (f64, f64) {
        (self.quantile(0.25), self.quantile(0.75))
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Samples(values.into_iter().collect())
    }
}

impl From<f64> for Samples {
    fn from(value: f64) -> Self {
        Samples(vec![value])
    }
}

/// A number with as many decimals as it is worth.
pub fn number(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "-".into(),
        size if size >= 100_000.0 => {
            let digits = format!("{:.0}", value);
            let mut text = String::new();
            for (place, digit) in digits.chars().enumerate() {
                if place > 0 && (digits.len() - place) % 3 == 0 && digit != '-' {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
