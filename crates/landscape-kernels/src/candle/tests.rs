#![allow(clippy::unwrap_used)]

use super::host::Float;
use super::*;
use crate::blend;
use crate::memory::{Accumulate, Real, View};
use crate::naive::tools::values;
use crate::step::{self, Adam, Decay, Nesterov, Sgd};
use candle_core::{DType, Device, Tensor, Var};

const CPU: Device = Device::Cpu;
const SHAPES: [&[usize]; 4] = [&[3, 5], &[7], &[], &[2, 130, 3]];

fn numbers<T: Float>(tensors: &[impl AsTensor]) -> Vec<Vec<T>> {
    tensors.iter().map(|t| t.as_tensor().flatten_all().unwrap().to_vec1().unwrap()).collect()
}

/// A list of tensors, and their numbers.
fn tensors<T: Float>(seed: u64) -> Vec<Tensor> {
    let make = |(idx, shape): (usize, &&[usize])| {
        Tensor::from_vec(values::<T>(shape.iter().product(), seed + 10 * idx as u64), *shape, &CPU).unwrap()
    };
    SHAPES.iter().enumerate().map(make).collect()
}

fn vars<T: Float>(seed: u64) -> Vec<Var> {
    tensors::<T>(seed).iter().map(|t| Var::from_tensor(t).unwrap()).collect()
}

fn check_bits<T: Float>(found: &[Var], expected: &[Vec<T>]) {
    for (found, expected) in numbers::<T>(found).iter().zip(expected) {
        assert_eq!(
            found.iter().map(|v| Real::to_f64(*v).to_bits()).collect::<Vec<_>>(),
            expected.iter().map(|v| Real::to_f64(*v).to_bits()).collect::<Vec<_>>()
        );
    }
}

fn blends_as_memory_does<T: Float>() {
    let c = [0.25, 0.0, 0.7, -0.1];
    let mut points: Vec<Vec<Tensor>> = (0..4).map(|k| tensors::<T>(100 * k)).collect();
    // A row of bf16, a row that is a transposed view, and one that begins within its storage.
    for tensor in &mut points[2] {
        *tensor = tensor.to_dtype(DType::BF16).unwrap();
    }
    points[0][0] = points[0][0].t().unwrap().contiguous().unwrap().t().unwrap();
    points[3][1] = Tensor::cat(&[&points[3][1], &points[3][1]], 0).unwrap().narrow(0, 7, 7).unwrap();
    let into = vars::<T>(7);
    let lists: Vec<&[Tensor]> = points.iter().map(Vec::as_slice).collect();
    blend(&c, &lists, &into).unwrap();
    let rows: Vec<Vec<Vec<T>>> =
        points.iter().map(|point| numbers(&point.iter().map(|t| t.to_dtype(T::DTYPE).unwrap()).collect::<Vec<_>>())).collect();
    for (l, var) in into.iter().enumerate() {
        let mut expected = vec![T::ZERO; rows[0][l].len()];
        let views: Vec<View<'_, T>> = rows.iter().map(|row| View::from(&row[l])).collect();
        blend::blend(&c, &views, (&mut expected).into()).unwrap();
        check_bits(std::slice::from_ref(var), &[expected]);
    }
    // The op by itself.
    let one = vars::<T>(9);
    one[0].inplace_op1(&Blend { c: &[1.0], rows: vec![into[0].as_tensor()] }).unwrap();
    check_bits(&one[..1], &numbers::<T>(&into[..1]));
    one[0].inplace_op1(&Blend { c: &[0.0], rows: vec![into[0].as_tensor()] }).unwrap();
    check_bits(&one[..1], &[vec![T::ZERO; 15]]);
}

#[test]
fn a_blend_of_lists_is_the_blend_of_memory() {
    blends_as_memory_does::<f32>();
    blends_as_memory_does::<f64>();
}

#[test]
fn spread_is_that_of_memory_and_leaves_other_rows_alone() {
    let (g, first, third) = (tensors::<f32>(1), vars::<f32>(2), vars::<f32>(3));
    let before = numbers::<f32>(&third);
    spread(&[0.5, 0.1, 0.25], &g, &[Some(&first), None, Some(&third)], Accumulate::Add).unwrap();
    let expected: Vec<Vec<f32>> =
        numbers::<f32>(&g).iter().zip(&before).map(|(g, before)| g.iter().zip(before).map(|(g, b)| b + 0.25 * g).collect()).collect();
    check_bits(&third, &expected);
    spread(&[0.5, 0.1, 0.25], &g, &[Some(&first), None, None], Accumulate::Overwrite).unwrap();
    let expected: Vec<Vec<f32>> = numbers::<f32>(&g).iter().map(|g| g.iter().map(|g| 0.5 * g).collect()).collect();
    check_bits(&first, &expected);
}

fn steps_as_memory_does<T: Float>() {
    let (g, w) = (tensors::<T>(1), tensors::<T>(2));
    let (g_rows, w_rows) = (numbers::<T>(&g), numbers::<T>(&w));
    let sgd = Sgd { lr: 0.1, momentum: 0.9, dampening: 0.0, weight_decay: 1e-3, nesterov: Nesterov::On };
    let adam = Adam { lr: 0.1, betas: [0.9, 0.99], eps: 1e-8, weight_decay: 0.1, decay: Decay::Decoupled };
    for point in [None, Some((w.as_slice(), 5e-4))] {
        let gradient = Spread { c: 0.3, gradient: &g, point };
        let view = |l: usize| point.map(|(_, decay)| (View::from(&w_rows[l]), decay));
        let (theta, first, second) = (vars::<T>(3), vars::<T>(4), vars::<T>(5));
        second.iter().for_each(|v| v.set(&v.sqr().unwrap()).unwrap());
        let [mut a, mut b, mut c] = [&theta, &first, &second].map(|list| numbers::<T>(list));
        for s in 0..2 {
            sgd_step(&sgd, s, gradient, &theta, Some(&first)).unwrap();
            adam_step(&adam, s + 1, gradient, &theta, &first, &second).unwrap();
            for l in 0..SHAPES.len() {
                let g = View::from(&g_rows[l]);
                step::spread_sgd_step(&sgd, s, 0.3, g, view(l), (&mut a[l]).into(), Some((&mut b[l]).into())).unwrap();
                step::spread_adam_step(&adam, s + 1, 0.3, g, view(l), (&mut a[l]).into(), (&mut b[l]).into(), (&mut c[l]).into()).unwrap();
            }
        }
        [(&theta, &a), (&first, &b), (&second, &c)].into_iter().for_each(|(found, expected)| check_bits(found, expected));
    }
    let plain = Sgd { momentum: 0.0, nesterov: Nesterov::Off, ..sgd };
    let theta = vars::<T>(3);
    sgd_step(&plain, 0, Spread { c: 1.0, gradient: &g, point: None }, &theta, None).unwrap();
    assert!(sgd_step(&sgd, 0, Spread { c: 1.0, gradient: &g, point: None }, &theta, None).is_err());
}

#[test]
fn steps_of_lists_are_the_steps_of_memory() {
    steps_as_memory_does::<f32>();
    steps_as_memory_does::<f64>();
}

/// Gradients as candle's backward pass gives them, weights as a graph sees them.
#[test]
fn a_graph_sees_what_is_written() {
    let w = Var::new(&[1.0_f64, 2.0], &CPU).unwrap();
    let loss = |w: &Var| w.sqr().unwrap().sum_all().unwrap();
    let gradient = loss(&w).backward().unwrap().get(&w).unwrap().clone();
    let sgd = Sgd { lr: 0.25, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: Nesterov::Off };
    sgd_step(&sgd, 0, Spread { c: 1.0, gradient: std::slice::from_ref(&gradient), point: None }, std::slice::from_ref(&w), None).unwrap();
    assert_eq!(loss(&w).to_scalar::<f64>().unwrap(), 0.25 + 1.0);
    write(&[3.0, 4.0], &w).unwrap();
    assert_eq!(loss(&w).to_scalar::<f64>().unwrap(), 25.0);
    let mut sum = [1.0, 1.0];
    add_to(&gradient, &mut sum).unwrap();
    assert_eq!(sum, [3.0, 5.0]);
    assert!(write(&[1.0_f32, 2.0], &w).is_err() && write(&[1.0_f64], &w).is_err() && add_to(&gradient, &mut [0.0_f32; 2]).is_err());
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let (a, b, into) = (tensors::<f32>(1), tensors::<f32>(2), vars::<f32>(3));
    let before = numbers::<f32>(&into);
    let wide = tensors::<f64>(4);
    let narrow: Vec<Tensor> = a.iter().map(|t| t.to_dtype(DType::BF16).unwrap()).collect();
    let own: Vec<Tensor> = into.iter().map(|v| v.as_tensor().clone()).collect();
    let mut other = b.clone();
    other[3] = other[3].flatten_all().unwrap();
    assert!(blend::<Tensor>(&[], &[], &into).is_err());
    assert!(blend(&[0.5, 0.5], &[&a], &into).is_err());
    for wrong in [&b[..3], &wide, &other, &own] {
        assert!(blend(&[0.5, 0.5], &[&a, wrong], &into).is_err());
        assert!(
            sgd_step(
                &Sgd { lr: 0.1, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: Nesterov::Off },
                0,
                Spread { c: 1.0, gradient: wrong, point: None },
                &into,
                None
            )
            .is_err()
        );
    }
    assert!(spread(&[1.0], &narrow, &[Some(&into)], Accumulate::Add).is_err());
    // A row is of one type, whichever of its tensors differs: one launch reads all of it.
    for odd in [0, 3] {
        let mut mixed = a.clone();
        mixed[odd] = narrow[odd].clone();
        let refused = blend(&[1.0], &[&mixed], &into).unwrap_err().to_string();
        assert!(refused.contains("of its row") && refused.contains("BF16"), "{refused}");
    }
    let turned = a[0].t().unwrap();
    let integers = a[0].to_dtype(DType::U32).unwrap();
    for (wrong, why) in [(&wide[0], "F64"), (&integers, "U32"), (&a[1], "elements"), (&turned, "contiguous")] {
        let refused = into[0].inplace_op1(&Blend { c: &[1.0], rows: vec![wrong] }).unwrap_err().to_string();
        assert!(refused.contains("row 0") && refused.contains(why), "{refused}");
    }
    for c in [&[][..], &[0.5, 0.5]] {
        assert!(into[0].inplace_op1(&Blend { c, rows: vec![&a[0]] }).is_err());
    }
    let twice = vec![into[0].clone(), into[0].clone()];
    assert!(blend(&[1.0], &[&[a[0].clone(), a[0].clone()][..]], &twice).is_err());
    check_bits(&into, &before);
}
