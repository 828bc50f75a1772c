//! What is asked for: a name, options, and the shape of the data.

use crate::error::{Error, Result};

/// The largest size that an option may ask for.
const MAX_SIZE: usize = 1 << 20;
/// The most layers that an option may ask for.
const MAX_COUNT: usize = 1024;
/// The largest factor that an option may ask for.
const MAX_WIDTH: f64 = 1024.0;

/// What is asked for.
pub(super) struct Request<'a> {
    pub(super) spec: &'a str,
    pub(super) name: &'a str,
    options: Vec<(&'a str, &'a str)>,
    pub(super) input_shape: &'a [usize],
    pub(super) n_outputs: usize,
}

impl<'a> Request<'a> {
    /// Reads `name` or `name:key=value,key=value`; which keys there are is [`Request::allow`]'s.
    pub(super) fn new(spec: &'a str, input_shape: &'a [usize], n_outputs: usize) -> Self {
        let (name, options) = spec.split_once(':').map_or((spec, None), |(name, options)| (name, Some(options)));
        let pairs = options.into_iter().flat_map(|options| options.split(','));
        let options = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
        Request { spec, name, options, input_shape, n_outputs }
    }

    /// Refuses options that the model does not have, that come twice or that have no value.
    pub(super) fn allow(&self, known: &[&str]) -> Result<()> {
        for (idx, &(key, value)) in self.options.iter().enumerate() {
            if !known.contains(&key) {
                let known = known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
                let expected =
                    if known.is_empty() { "no options".to_owned() } else { format!("options of {known}, as `key=value,key=value`") };
                return Err(self.misfit(expected, format!("`{key}`")));
            }
            if value.is_empty() {
                return Err(self.misfit(format!("a value, as in `{key}=2`"), format!("`{key}`")));
            }
            if self.options[..idx].iter().any(|&(other, _)| other == key) {
                return Err(self.misfit(format!("`{key}` once"), "it twice"));
            }
        }
        Ok(())
    }

    pub(super) fn option(&self, key: &str) -> Option<&'a str> {
        self.options.iter().find(|&&(name, _)| name == key).map(|&(_, value)| value)
    }

    /// A length.
    pub(super) fn size(&self, key: &str, default: usize) -> Result<usize> {
        self.whole(key, default, MAX_SIZE)
    }

    /// How many layers.
    pub(super) fn count(&self, key: &str, default: usize) -> Result<usize> {
        self.whole(key, default, MAX_COUNT)
    }

    fn whole(&self, key: &str, default: usize, most: usize) -> Result<usize> {
        let Some(value) = self.option(key) else { return Ok(default) };
        let whole = value.parse().ok().filter(|whole| (1..=most).contains(whole));
        whole.ok_or_else(|| self.misfit(format!("`{key}` from 1 to {most}"), format!("`{value}`")))
    }

    /// A number of which `holds` says whether it will do.
    pub(super) fn number(&self, key: &str, default: f64, expected: &str, holds: impl Fn(f64) -> bool) -> Result<f64> {
        let Some(value) = self.option(key) else { return Ok(default) };
        let number = value.parse().ok().filter(|&number: &f64| number.is_finite() && holds(number));
        number.ok_or_else(|| self.misfit(format!("`{key}` {expected}"), format!("`{value}`")))
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(&self, key: &str, default: T, choices: &[(&str, T)]) -> Result<T> {
        let Some(value) = self.option(key) else { return Ok(default) };
        let choice = choices.iter().find(|(name, _)| *name == value).map(|&(_, choice)| choice);
        choice.ok_or_else(|| {
            let names = choices.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            self.misfit(format!("`{key}` one of {names}"), format!("`{value}`"))
        })
    }

    /// The factor on all channels.
    pub(super) fn width(&self) -> Result<Width> {
        let factor = self.number("width", 1.0, &format!("above 0 and at most {MAX_WIDTH}"), |width| width > 0.0 && width <= MAX_WIDTH)?;
        Ok(Width(factor))
    }

    pub(super) fn misfit(&self, expected: impl Into<String>, got: impl Into<String>) -> Error {
        Error::Model { spec: self.spec.to_owned(), expected: expected.into(), got: got.into() }
    }

    /// Refuses features, and images too small for the pooling that follows.
    pub(super) fn check_image(&self, least: usize) -> Result<()> {
        match *self.input_shape {
            [_, height, width] if height >= least && width >= least => Ok(()),
            _ => {
                Err(self.misfit(format!("images [channels, height, width] of at least {least}x{least}"), format!("{:?}", self.input_shape)))
            }
        }
    }

    /// How many tokens an example has; refuses all but one axis.
    pub(super) fn n_tokens(&self) -> Result<usize> {
        match *self.input_shape {
            [n_tokens] if n_tokens >= 1 => Ok(n_tokens),
            _ => Err(self.misfit("tokens [length]", format!("{:?}", self.input_shape))),
        }
    }
}

/// A factor on channels.
#[derive(Clone, Copy)]
pub(super) struct Width(f64);

impl Width {
    /// The channels times the factor, rounded to a whole number, at least 1.
    pub(super) fn of(self, channels: usize) -> usize {
        ((channels as f64 * self.0).round() as usize).max(1)
    }

    /// The channels times the factor in steps of 8, at least 8 and at least nine tenths of the product.
    ///
    /// # Source
    /// `_make_divisible` of torchvision, which took it from the MobileNets' own code.
    pub(super) fn of_eights(self, channels: usize) -> usize {
        let exact = channels as f64 * self.0;
        let rounded = (((exact + 4.0) as usize) / 8 * 8).max(8);
        if (rounded as f64) < 0.9 * exact { rounded + 8 } else { rounded }
    }

    /// The factor, at least 1.
    pub(super) fn at_least_one(self) -> Self {
        Width(self.0.max(1.0))
    }

    /// The factor 1.
    pub(super) const ONE: Width = Width(1.0);
}
