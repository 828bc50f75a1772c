//! K control points, each a row of P numbers with an allocation of its own, and the two operations on them.

use crate::coefficients::Coefficients;
use crate::error::{Error, Result};
use crate::layout::ParamLayout;
use crate::params::Flat;
use crate::stored::{StoredPoint, panels};
use landscape_kernels::{Accumulate, Device, Real, View, blend};
use std::borrow::Cow;
use std::sync::Arc;

/// One control point: free rows are owned and move in training, frozen rows may be shared between many paths.
#[derive(Debug, Clone)]
pub enum Row<T> {
    /// A row that training may change.
    Free(Flat<T>),
    /// A row that stays as it is.
    Frozen(Arc<Flat<T>>),
    /// A row that stays as it is, where it is.
    Stored(Arc<StoredPoint<T>>),
}

impl<T: Real> Row<T> {
    /// The point; one that is stored is read into memory for it.
    pub fn point(&self) -> Cow<'_, Flat<T>> {
        match self {
            Row::Free(flat) => Cow::Borrowed(flat),
            Row::Frozen(flat) => Cow::Borrowed(flat),
            Row::Stored(stored) => Cow::Owned(stored.read()),
        }
    }

    /// The names and shapes.
    pub fn layout(&self) -> &Arc<ParamLayout> {
        match self {
            Row::Free(flat) => flat.layout(),
            Row::Frozen(flat) => flat.layout(),
            Row::Stored(stored) => stored.layout(),
        }
    }

    /// Where the numbers of the row, or those made of them, live.
    pub fn device(&self) -> Device {
        match self {
            Row::Free(flat) => flat.device(),
            Row::Frozen(flat) => flat.device(),
            Row::Stored(_) => Device::Cpu,
        }
    }
}

impl<T> From<Arc<Flat<T>>> for Row<T> {
    fn from(point: Arc<Flat<T>>) -> Self {
        Row::Frozen(point)
    }
}

/// K control points θ_0 … θ_{K−1} of equal layout.
#[derive(Debug, Clone)]
pub struct ControlPoints<T> {
    rows: Vec<Row<T>>,
}

impl<T: Real> ControlPoints<T> {
    /// These rows.
    ///
    /// # Errors
    /// If there are none, or their layouts differ (every difference is listed).
    pub fn new(rows: Vec<Row<T>>) -> Result<Self> {
        let Some(first) = rows.first() else {
            return Err(Error::config("rows", "at least one control point", "none"));
        };
        for (k, row) in rows.iter().enumerate().skip(1) {
            first.layout().check_same("control point 0", row.layout(), &format!("control point {k}"))?;
        }
        Ok(ControlPoints { rows })
    }

    /// One free row: ordinary training.
    pub fn single(point: Flat<T>) -> Self {
        ControlPoints { rows: vec![Row::Free(point)] }
    }

    /// The same points on `device`; rows that stand there already are moved, those on disk are read.
    ///
    /// # Errors
    /// If an accelerator failed.
    pub fn on_device(self, device: &Device) -> Result<Self> {
        let rows = self.rows.into_iter().map(|row| match row {
            row if row.device() == *device => Ok(row),
            Row::Free(flat) => Ok(Row::Free(flat.to_device(device)?)),
            Row::Frozen(flat) => Ok(Row::Frozen(Arc::new(flat.to_device(device)?))),
            Row::Stored(stored) => Ok(Row::Frozen(Arc::new(stored.read().to_device(device)?))),
        });
        Ok(ControlPoints { rows: rows.collect::<Result<_>>()? })
    }

    /// K.
    pub fn n_points(&self) -> usize {
        self.rows.len()
    }

    /// The names and shapes.
    pub fn layout(&self) -> &Arc<ParamLayout> {
        self.rows[0].layout()
    }

    /// The rows.
    pub fn rows(&self) -> &[Row<T>] {
        &self.rows
    }

    /// Where the rows live.
    pub fn device(&self) -> Device {
        self.rows.iter().map(Row::device).find(|device| *device != Device::Cpu).unwrap_or_default()
    }

    /// Control point k; one that is stored is read into memory for it.
    ///
    /// # Panics
    /// If there is no such point.
    pub fn point(&self, k: usize) -> Cow<'_, Flat<T>> {
        self.rows[k].point()
    }

    /// Control point k to write, if it is free.
    pub fn free_mut(&mut self, k: usize) -> Option<&mut Flat<T>> {
        match self.rows.get_mut(k) {
            Some(Row::Free(flat)) => Some(flat),
            _ => None,
        }
    }

    /// Whether control point k moves in training.
    pub fn is_free(&self, k: usize) -> bool {
        matches!(self.rows.get(k), Some(Row::Free(_)))
    }

    /// w = Σ_k c_k θ_k into `out`; with one-hot coefficients a copy, bit for bit.
    ///
    /// # Errors
    /// If the number of coefficients or the length of `out` is wrong.
    pub fn blend_into(&self, c: &Coefficients, out: &mut Flat<T>) -> Result<()> {
        self.check_coefficients(c)?;
        let in_memory: Option<Vec<View<'_, T>>> = self.rows.iter().map(in_memory).collect();
        match in_memory {
            Some(rows) => Ok(blend::blend(c.as_slice(), &rows, out.view_mut())?),
            None => self.blend_stored_into(c, out),
        }
    }

    /// [`ControlPoints::blend_into`] where rows are stored: panel by panel, so that little of them is in memory at any time.
    fn blend_stored_into(&self, c: &Coefficients, out: &mut Flat<T>) -> Result<()> {
        self.layout().check_same("the control points", out.layout(), "the point")?;
        if self.device() != Device::Cpu {
            return Err(Error::config("rows", "all on the processor where one of them is stored", self.device()));
        }
        // Rows that do not count are not read.
        let counted: Vec<(&Row<T>, f64)> = self.rows.iter().zip(c.as_slice().iter().copied()).filter(|(_, c)| *c != 0.0).collect();
        if counted.is_empty() {
            return Ok(out.view_mut().fill(T::ZERO)?);
        }
        let c: Vec<f64> = counted.iter().map(|(_, c)| *c).collect();
        let mut scratch: Vec<Vec<T>> = vec![Vec::new(); counted.len()];
        for (idx, range) in panels(self.layout()) {
            let offset = self.layout().tensors()[idx].offset;
            let place = offset + range.start..offset + range.end;
            let rows: Vec<blend::Row<'_, T>> = counted
                .iter()
                .zip(&mut scratch)
                .map(|((row, _), scratch)| match row {
                    Row::Stored(stored) => stored.piece(idx, range.clone(), scratch),
                    Row::Free(flat) => blend::Row::Plain(flat.view().slice(place.clone())),
                    Row::Frozen(flat) => blend::Row::Plain(flat.view().slice(place.clone())),
                })
                .collect();
            blend::blend_rows(&c, &rows, out.view_mut().slice(place))?;
            for (row, _) in &counted {
                if let Row::Stored(stored) = row {
                    stored.release(idx, range.clone());
                }
            }
        }
        Ok(())
    }

    /// The point w = Σ_k c_k θ_k.
    ///
    /// # Errors
    /// If the number of coefficients is wrong.
    pub fn blend(&self, c: &Coefficients) -> Result<Flat<T>> {
        let mut out = Flat::zeros(self.layout(), &self.device());
        self.blend_into(c, &mut out)?;
        Ok(out)
    }

    /// ∂/∂θ_k = c_k·g for every row that has a gradient to write to.
    ///
    /// # Errors
    /// If the number of coefficients or gradients, or a length, is wrong.
    pub fn spread(&self, c: &Coefficients, g: &Flat<T>, into: &mut [Option<Flat<T>>], mode: Accumulate) -> Result<()> {
        self.check_coefficients(c)?;
        if into.len() != self.n_points() {
            return Err(Error::config("into", format!("{} rows", self.n_points()), into.len()));
        }
        let mut rows: Vec<_> = into.iter_mut().map(|row| row.as_mut().map(Flat::view_mut)).collect();
        Ok(blend::spread(c.as_slice(), g.view(), &mut rows, mode)?)
    }

    fn check_coefficients(&self, c: &Coefficients) -> Result<()> {
        if c.n_points() == self.n_points() {
            Ok(())
        } else {
            Err(Error::config("coefficients", format!("{} numbers", self.n_points()), c.n_points()))
        }
    }
}

/// The numbers of a row that has them in memory.
fn in_memory<T: Real>(row: &Row<T>) -> Option<View<'_, T>> {
    match row {
        Row::Free(flat) => Some(flat.view()),
        Row::Frozen(flat) => Some(flat.view()),
        Row::Stored(_) => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::curve::CurveKind;
    use landscape_kernels::Device;

    fn rows<T: Real>(n_points: usize) -> ControlPoints<T> {
        let layout = Arc::new(ParamLayout::new([("w".to_owned(), vec![7])]).unwrap());
        // Numbers that arithmetic would change: signed zero, subnormals, and neighbours of one.
        let values = |k: usize| [-0.0, 0.0, 1e-310, 1e-40, 1.0 + k as f64 * 1e-7, -1.0 / 3.0, 1e30].map(T::from_f64).to_vec();
        let row = |k| Row::Free(Flat::from_vec(&layout, &Device::Cpu, values(k)).unwrap());
        ControlPoints::new((0..n_points).map(row).collect()).unwrap()
    }

    /// f64 holds every f32 exactly, so its bits tell all.
    fn bits<T: Real>(point: &Flat<T>) -> Vec<u64> {
        point.to_vec().into_iter().map(|v| v.to_f64().to_bits()).collect()
    }

    fn check_ends<T: Real>() {
        for (kind, n_points) in [CurveKind::Bezier, CurveKind::PolyChain].into_iter().flat_map(|kind| [2, 3, 4, 6].map(|n| (kind, n))) {
            let mut points = rows::<T>(n_points);
            let curve = kind.build(n_points).unwrap();
            for (t, k) in [(0.0, 0), (1.0, n_points - 1)] {
                let end = points.blend(&curve.coefficients(t).unwrap()).unwrap();
                assert_eq!(bits(&end), bits(&points.point(k)), "{kind:?} of {n_points} at {t}");
            }
            if n_points > 2 {
                points.free_mut(1).unwrap().view_mut().fill(T::from_f64(f64::NAN)).unwrap();
                let end = points.blend(&curve.coefficients(1.0).unwrap()).unwrap();
                assert!(end.check_finite().is_ok(), "a diverged bend does not reach the ends");
            }
        }
    }

    #[test]
    fn the_ends_of_every_curve_are_the_endpoints_bit_for_bit() {
        check_ends::<f32>();
        check_ends::<f64>();
    }

    #[test]
    fn wrong_numbers_of_rows_and_coefficients_are_refused() {
        let points = rows::<f64>(3);
        let c = Coefficients::one_hot(0, 2).unwrap();
        assert!(points.blend(&c).is_err());
        let g = points.point(0).into_owned();
        assert!(points.spread(&c, &g, &mut [None, None, None], Accumulate::Overwrite).is_err());
        let c = Coefficients::one_hot(0, 3).unwrap();
        assert!(points.spread(&c, &g, &mut [None, None], Accumulate::Overwrite).is_err());
        assert!(ControlPoints::<f64>::new(vec![]).is_err());
        let mut frozen = ControlPoints::new(vec![Row::Frozen(Arc::new(g.clone())), Row::Free(g)]).unwrap();
        assert!(frozen.free_mut(0).is_none() && frozen.free_mut(1).is_some() && frozen.free_mut(2).is_none());
    }
}
