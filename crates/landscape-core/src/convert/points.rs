//! Control points made of candle tensors, which remember how to become such tensors again.

use super::{BufferNames, BufferPolicy};
use crate::coefficients::Coefficients;
use crate::control::{ControlPoints, Row};
use crate::error::{Error, Result};
use crate::layout::ParamLayout;
use crate::params::Flat;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarMap;
use landscape_kernels::Real;
use std::collections::BTreeMap;
use std::sync::Arc;

#[expect(clippy::disallowed_types, reason = "candle's VarBuilder takes a std map; its order is never used")]
type TensorMap = std::collections::HashMap<String, Tensor>;

/// Control points with what is needed to turn any point of their span into candle tensors: the names, element types and device of
/// the originals, and the buffers of each.
///
/// Tensors stand in the order of their names, since a map has none.
#[derive(Debug, Clone)]
pub struct TensorPoints<T> {
    points: ControlPoints<T>,
    /// In the order of the layout.
    dtypes: Vec<DType>,
    /// One set per control point.
    buffers: Vec<BTreeMap<String, Tensor>>,
    policy: BufferPolicy,
    device: Device,
}

impl ControlPoints<f32> {
    /// Control points that are candle models, two for a segment; the rows are frozen. `T` is f32, so that 16-bit weights are exact
    /// too; for f64 weights use [`TensorPoints::<f64>::from_tensors`].
    ///
    /// # Errors
    /// As [`TensorPoints::from_tensors`].
    pub fn from_tensors<'a>(maps: impl IntoIterator<Item = &'a TensorMap>, buffers: BufferNames) -> Result<TensorPoints<f32>> {
        TensorPoints::from_tensors(maps, buffers)
    }
}

impl<T: Real> TensorPoints<T> {
    /// Control points that are candle models; the rows are frozen.
    ///
    /// # Errors
    /// If there are none, names, shapes or element types differ (every difference is listed), a weight is NaN or infinite, or a
    /// tensor is neither a named buffer nor of a float type that `T` holds exactly.
    pub fn from_tensors<'a>(maps: impl IntoIterator<Item = &'a TensorMap>, buffers: BufferNames) -> Result<Self> {
        let maps = maps.into_iter().map(|map| map.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect());
        Self::from_sorted(maps.collect(), buffers)
    }

    /// Control points that are candle models held in variables; later changes of the variables are not seen.
    ///
    /// # Errors
    /// As [`TensorPoints::from_tensors`].
    pub fn from_varmaps<'a>(maps: impl IntoIterator<Item = &'a VarMap>, buffers: BufferNames) -> Result<Self> {
        let sorted = |map: &VarMap| {
            let vars = map.data().lock().map_err(|_| poisoned())?;
            Ok(vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect())
        };
        Self::from_sorted(maps.into_iter().map(sorted).collect::<Result<_>>()?, buffers)
    }

    fn from_sorted(maps: Vec<BTreeMap<String, Tensor>>, names: BufferNames) -> Result<Self> {
        let Some(first) = maps.first() else {
            return Err(Error::config("maps", "at least one control point", "none"));
        };
        if let BufferPolicy::Of(k) = names.policy()
            && k >= maps.len()
        {
            return Err(Error::config("policy", format!("the buffers of a control point below {}", maps.len()), k));
        }
        let device = first.values().next().map_or(Device::Cpu, |tensor| tensor.device().clone());
        let mut rows = Vec::with_capacity(maps.len());
        let mut buffers = Vec::with_capacity(maps.len());
        for (k, map) in maps.iter().enumerate() {
            if k > 0 {
                check_alike(first, map, &format!("control point {k}"))?;
            }
            let (row, own_buffers) = read_point::<T>(map, &names)?;
            rows.push(Row::Frozen(Arc::new(row)));
            buffers.push(own_buffers);
        }
        let dtypes = first.iter().filter(|(name, _)| !names.contains(name)).map(|(_, tensor)| tensor.dtype()).collect();
        Ok(TensorPoints { points: ControlPoints::new(rows)?, dtypes, buffers, policy: names.policy(), device })
    }

    /// The control points.
    pub fn points(&self) -> &ControlPoints<T> {
        &self.points
    }

    /// The same models on another path: other control points of the same layout, such as a bend trained between them. A new row gets
    /// the buffers of the old one that stands nearest in the order (ends keep theirs).
    ///
    /// # Errors
    /// If the layout is another.
    pub fn with_points(&self, points: ControlPoints<T>) -> Result<Self> {
        self.points.layout().check_same("the models", points.layout(), "the path")?;
        let (last, old_last) = ((points.n_points() - 1).max(1), self.buffers.len() - 1);
        // Rounds k/last to the nearest of the old points, half down, so that the first half belongs to the start.
        let nearest = |k: usize| (2 * k * old_last + last - 1) / (2 * last);
        let buffers = (0..points.n_points()).map(|k| self.buffers[nearest(k).min(old_last)].clone()).collect();
        Ok(TensorPoints { points, buffers, ..self.clone() })
    }

    /// The point Σ_k c_k θ_k as tensors with the names, shapes, element types and device of the originals, buffers included; with
    /// one-hot coefficients the control point itself, bit for bit.
    ///
    /// # Errors
    /// If the number of coefficients is wrong, or candle fails.
    pub fn to_tensors(&self, c: &Coefficients) -> Result<TensorMap> {
        let point = self.points.blend(c)?;
        let mut tensors: TensorMap = self.buffers_at(c)?.into_iter().collect();
        let values = point.view().host();
        for (spec, &dtype) in point.layout().tensors().iter().zip(&self.dtypes) {
            let values: Vec<f64> = values[spec.range()].iter().map(|v| v.to_f64()).collect();
            let tensor = Tensor::from_vec(values, spec.shape.as_slice(), &Device::Cpu)?;
            tensors.insert(spec.name.clone(), tensor.to_dtype(dtype)?.to_device(&self.device)?);
        }
        Ok(tensors)
    }

    /// Writes the point Σ_k c_k θ_k into variables of the same names, in place: models built on them are at that point from then on.
    ///
    /// # Errors
    /// If names, shapes or element types differ (every difference is listed; nothing is written then), or candle fails.
    pub fn write_into(&self, vars: &VarMap, c: &Coefficients) -> Result<()> {
        let tensors: BTreeMap<String, Tensor> = self.to_tensors(c)?.into_iter().collect();
        let vars = vars.data().lock().map_err(|_| poisoned())?;
        let present = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        check_alike(&tensors, &present, "the variables")?;
        for (name, tensor) in tensors {
            let var = vars.get(&name).expect("every name was checked to be there");
            var.set(&tensor.to_device(var.device())?)?;
        }
        Ok(())
    }

    fn buffers_at(&self, c: &Coefficients) -> Result<BTreeMap<String, Tensor>> {
        let c = c.as_slice();
        let largest = (1..c.len()).fold(0, |best, k| if c[k] > c[best] { k } else { best });
        match self.policy {
            BufferPolicy::Nearest => Ok(self.buffers[largest].clone()),
            BufferPolicy::Of(k) => Ok(self.buffers[k.min(self.buffers.len() - 1)].clone()),
            BufferPolicy::Interpolated if c[largest] == 1.0 && c.iter().filter(|c| **c != 0.0).count() == 1 => {
                Ok(self.buffers[largest].clone())
            }
            BufferPolicy::Interpolated => {
                let blend = |name: &String, like: &Tensor| -> Result<Tensor> {
                    if !like.dtype().is_float() {
                        return Ok(like.clone());
                    }
                    let mut sum = like.to_dtype(DType::F64)?.affine(0.0, 0.0)?;
                    for (c, buffers) in c.iter().zip(&self.buffers).filter(|(c, _)| **c != 0.0) {
                        sum = (sum + (buffers[name].to_dtype(DType::F64)? * *c)?)?;
                    }
                    Ok(sum.to_dtype(like.dtype())?)
                };
                self.buffers[largest].iter().map(|(name, like)| Ok((name.clone(), blend(name, like)?))).collect()
            }
        }
    }
}

/// Weights as one row, and copies of the buffers.
fn read_point<T: Real>(map: &BTreeMap<String, Tensor>, names: &BufferNames) -> Result<(Flat<T>, BTreeMap<String, Tensor>)> {
    let (buffers, weights): (Vec<_>, Vec<_>) = map.iter().partition(|(name, _)| names.contains(name));
    let layout = ParamLayout::new(weights.iter().map(|(name, tensor)| ((*name).clone(), tensor.dims().to_vec())))?;
    let mut values = Vec::with_capacity(layout.n_elements());
    for (name, tensor) in weights {
        let is_exact = match tensor.dtype() {
            DType::F32 | DType::F16 | DType::BF16 => true,
            DType::F64 => T::NAME == "f64",
            _ => false,
        };
        if !is_exact {
            let reason =
                format!("{:?} weights do not fit into {} control points; name it as a buffer if it is one", tensor.dtype(), T::NAME);
            return Err(Error::Tensor { tensor: name.clone(), reason });
        }
        let numbers = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        values.extend(numbers.into_iter().map(T::from_f64));
    }
    let row = Flat::from_vec(&Arc::new(layout), &landscape_kernels::Device::Cpu, values)?;
    row.check_finite()?;
    // A copy: a variable's tensor would change under us.
    let copies = buffers.into_iter().map(|(name, tensor)| Ok((name.clone(), tensor.detach().copy()?)));
    Ok((row, copies.collect::<Result<_>>()?))
}

/// Fails, with every difference listed, unless both maps have the same names, shapes and element types.
fn check_alike(left: &BTreeMap<String, Tensor>, right: &BTreeMap<String, Tensor>, right_name: &str) -> Result<()> {
    let describe = |tensor: &Tensor| format!("{:?} {:?}", tensor.dtype(), tensor.dims());
    let left_name = "control point 0";
    let mut differences = Vec::new();
    for (name, tensor) in left {
        match right.get(name) {
            None => differences.push(format!("`{name}` ({}) is only in {left_name}", describe(tensor))),
            Some(other) if other.dims() != tensor.dims() || other.dtype() != tensor.dtype() => {
                differences.push(format!("`{name}` is {} in {left_name} and {} in {right_name}", describe(tensor), describe(other)));
            }
            Some(_) => {}
        }
    }
    for (name, tensor) in right.iter().filter(|(name, _)| !left.contains_key(*name)) {
        differences.push(format!("`{name}` ({}) is only in {right_name}", describe(tensor)));
    }
    if differences.is_empty() {
        Ok(())
    } else {
        Err(Error::Layout { left: left_name.to_owned(), right: right_name.to_owned(), differences })
    }
}

fn poisoned() -> Error {
    Error::Objective("the variables are locked by a thread that panicked".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Buffers;
    use crate::curve::{Bezier, Curve, Segment};
    use candle_core::Var;
    use half::{bf16, f16};

    fn model(scale: f64) -> TensorMap {
        let dev = &Device::Cpu;
        let grid = |shape: &[usize], dtype: DType| {
            let n: usize = shape.iter().product();
            let values: Vec<f64> = (0..n).map(|i| scale * (1.0 + i as f64) / 3.0).collect();
            Tensor::from_vec(values, shape, dev).unwrap().to_dtype(dtype).unwrap()
        };
        [
            ("fc.weight", grid(&[2, 3], DType::F32)),
            ("fc.bias", grid(&[2], DType::BF16)),
            ("gain", grid(&[], DType::F16)),
            ("bn.running_mean", grid(&[2], DType::F32)),
            ("bn.num_batches_tracked", Tensor::new(&[(10.0 * scale) as i64], dev).unwrap()),
        ]
        .into_iter()
        .map(|(name, tensor)| (name.to_owned(), tensor))
        .collect()
    }

    fn names() -> BufferNames {
        Buffers::named(["running_mean", "num_batches_tracked"])
    }

    fn bits(tensor: &Tensor) -> Vec<u64> {
        let flat = tensor.flatten_all().unwrap();
        match tensor.dtype() {
            DType::F32 => flat.to_vec1::<f32>().unwrap().into_iter().map(|v| u64::from(v.to_bits())).collect(),
            DType::BF16 => flat.to_vec1::<bf16>().unwrap().into_iter().map(|v| u64::from(v.to_bits())).collect(),
            DType::F16 => flat.to_vec1::<f16>().unwrap().into_iter().map(|v| u64::from(v.to_bits())).collect(),
            DType::F64 => flat.to_vec1::<f64>().unwrap().into_iter().map(f64::to_bits).collect(),
            _ => flat.to_vec1::<i64>().unwrap().into_iter().map(|v| v as u64).collect(),
        }
    }

    fn assert_same(found: &TensorMap, expected: &TensorMap) {
        let (found, expected): (BTreeMap<_, _>, BTreeMap<_, _>) = (found.iter().collect(), expected.iter().collect());
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, tensor) in expected {
            assert_eq!((found[name].dims(), found[name].dtype()), (tensor.dims(), tensor.dtype()), "{name}");
            assert_eq!(bits(found[name]), bits(tensor), "{name}");
        }
    }

    #[test]
    fn ends_come_back_bit_for_bit_with_names_and_types() {
        let (a, b) = (model(1.0), model(-2.5));
        for names in [names(), names().interpolated()] {
            let points = ControlPoints::from_tensors([&a, &b], names).unwrap();
            assert_same(&points.to_tensors(&Segment.coefficients(0.0).unwrap()).unwrap(), &a);
            assert_same(&points.to_tensors(&Segment.coefficients(1.0).unwrap()).unwrap(), &b);
        }
    }

    #[test]
    fn weights_are_blended_and_buffers_follow_their_policy() {
        let (a, b) = (model(1.0), model(3.0));
        let at = |names: BufferNames, t: f64| {
            let points = ControlPoints::from_tensors([&a, &b], names).unwrap();
            points.to_tensors(&Segment.coefficients(t).unwrap()).unwrap()
        };
        let mean = |map: &TensorMap| map["bn.running_mean"].to_vec1::<f32>().unwrap()[0];
        let count = |map: &TensorMap| map["bn.num_batches_tracked"].to_vec1::<i64>().unwrap()[0];
        let quarter = at(names(), 0.25);
        assert!((quarter["fc.weight"].to_vec2::<f32>().unwrap()[0][0] - 0.5).abs() < 1e-7);
        assert_eq!((mean(&quarter), count(&quarter)), (mean(&a), 10));
        assert_eq!(mean(&at(names(), 0.5)), mean(&a));
        assert_eq!(mean(&at(names(), 0.75)), mean(&b));
        let interpolated = at(names().interpolated(), 0.25);
        assert!((mean(&interpolated) - 0.5).abs() < 1e-7);
        assert_eq!(count(&interpolated), 10);
        assert_eq!(mean(&at(names().with_policy(BufferPolicy::Of(1)), 0.0)), mean(&b));
        assert!(ControlPoints::from_tensors([&a, &b], names().with_policy(BufferPolicy::Of(2))).is_err());
    }

    #[test]
    fn what_is_not_a_weight_must_be_named() {
        let (a, b) = (model(1.0), model(2.0));
        let error = ControlPoints::from_tensors([&a, &b], Buffers::named(["running_mean"])).unwrap_err().to_string();
        assert!(error.contains("`bn.num_batches_tracked`") && error.contains("I64"), "{error}");
        let mut precise = a.clone();
        precise.insert("fc.weight".to_owned(), a["fc.weight"].to_dtype(DType::F64).unwrap());
        assert!(ControlPoints::from_tensors([&precise], names()).unwrap_err().to_string().contains("`fc.weight`"));
        let points = TensorPoints::<f64>::from_tensors([&precise], names()).unwrap();
        assert_same(&points.to_tensors(&Coefficients::one_hot(0, 1).unwrap()).unwrap(), &precise);
        let none: [&TensorMap; 0] = [];
        assert!(ControlPoints::from_tensors(none, BufferNames::none()).is_err());
    }

    #[test]
    fn all_differences_are_listed_and_weights_must_be_finite() {
        let (a, mut b) = (model(1.0), model(2.0));
        b.insert("fc.weight".to_owned(), b["fc.weight"].t().unwrap());
        b.insert("fc.bias".to_owned(), b["fc.bias"].to_dtype(DType::F32).unwrap());
        b.remove("bn.running_mean");
        b.insert("extra".to_owned(), b["gain"].clone());
        let error = ControlPoints::from_tensors([&a, &b], names()).unwrap_err().to_string();
        for name in ["`fc.weight` is F32 [2, 3]", "`fc.bias` is BF16 [2]", "`bn.running_mean`", "`extra`"] {
            assert!(error.contains(name), "{error}");
        }
        let mut a = a;
        a.insert("fc.weight".to_owned(), Tensor::new(&[[f32::NAN]], &Device::Cpu).unwrap());
        assert!(ControlPoints::from_tensors([&a], names()).unwrap_err().to_string().contains("`fc.weight` holds NaN"));
    }

    #[test]
    fn variables_are_read_once_and_written_in_place() {
        let varmap = |scale: f64| {
            let vars = VarMap::new();
            for (name, tensor) in model(scale) {
                vars.data().lock().unwrap().insert(name, Var::from_tensor(&tensor).unwrap());
            }
            vars
        };
        let tensors = |vars: &VarMap| -> TensorMap {
            vars.data().lock().unwrap().iter().map(|(name, var)| (name.clone(), var.as_tensor().copy().unwrap())).collect()
        };
        let (a, b) = (varmap(1.0), varmap(3.0));
        let points = TensorPoints::<f32>::from_varmaps([&a, &b], names()).unwrap();
        points.write_into(&a, &Coefficients::one_hot(1, 2).unwrap()).unwrap();
        assert_same(&tensors(&a), &model(3.0));
        points.write_into(&a, &Coefficients::one_hot(0, 2).unwrap()).unwrap();
        assert_same(&tensors(&a), &model(1.0));
        let _ = b.data().lock().unwrap().remove("fc.bias");
        let before = tensors(&b);
        assert!(points.write_into(&b, &Coefficients::one_hot(0, 2).unwrap()).unwrap_err().to_string().contains("`fc.bias`"));
        assert_same(&tensors(&b), &before);
    }

    #[test]
    fn a_trained_bend_takes_the_place_between_the_ends() {
        let (a, b) = (model(1.0), model(3.0));
        let ends = ControlPoints::from_tensors([&a, &b], names()).unwrap();
        let rows = ends.points().rows();
        let path = ControlPoints::new(vec![rows[0].clone(), rows[0].clone(), rows[1].clone()]).unwrap();
        let curve = ends.with_points(path).unwrap();
        let at = |t: f64| curve.to_tensors(&Bezier::new(3).unwrap().coefficients(t).unwrap()).unwrap();
        assert_same(&at(0.0), &a);
        assert_same(&at(1.0), &b);
        assert_eq!(bits(&at(0.6)["bn.running_mean"]), bits(&a["bn.running_mean"]));
        assert_eq!(bits(&at(0.9)["bn.running_mean"]), bits(&b["bn.running_mean"]));
    }
}
