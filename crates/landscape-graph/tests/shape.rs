//! Shapes against windows laid out one by one.
#![allow(clippy::unwrap_used)]

use landscape_graph::{Bias, Conv2d, Dtype, Error, Gelu, GraphBuilder, Op, WeightOrder, infer};
use proptest::prelude::*;

/// Where windows begin, from the first row of padding on, as long as their last tap is inside the padded image.
fn starts(size: usize, kernel: usize, stride: usize, padding: usize, dilation: usize) -> Vec<i64> {
    let last_tap = |start: i64| start + (dilation * (kernel - 1)) as i64;
    (0..).map(|idx| idx * stride as i64 - padding as i64).take_while(|&start| last_tap(start) < (size + padding) as i64).collect()
}

proptest! {
    #[test]
    fn convolutions(size in 1usize..30, kernel in 1usize..6, stride in 1usize..5, padding in 0usize..4, dilation in 1usize..4) {
        let conv = |bias| Conv2d {
            kernel_size: [kernel, 1], stride: [stride, 1], padding: [padding, 0], dilation: [dilation, 1], bias, ..Conv2d::new(5, 1)
        };
        let mut b = GraphBuilder::new([2, size, 3]);
        let made = b.conv2d("conv", b.input(), conv(Bias::Off));
        match starts(size, kernel, stride, padding, dilation).len() {
            0 => assert!(matches!(made, Err(Error::Shape { .. }))),
            n => prop_assert_eq!(b.shape(made.unwrap()).unwrap(), &vec![5, n, 3]),
        }
    }

    /// Every pooling window holds at least one pixel: none would have a largest value, or a count to divide by.
    #[test]
    fn pools(size in 1usize..30, kernel in 1usize..6, stride in 1usize..8, padding in 0usize..4) {
        let max = Op::MaxPool2d { kernel_size: [1, kernel], stride: [1, stride], padding: [0, padding] };
        let average = Op::AvgPool2d {
            kernel_size: [1, kernel], stride: [1, stride], padding: [0, padding], count_include_pad: false,
        };
        let shape = vec![3, 2, size];
        let made = infer("pool", &max, &[&shape]);
        prop_assert_eq!(infer("pool", &average, &[&shape]).is_ok(), made.is_ok());
        let starts = starts(size, kernel, stride, padding, 1);
        if padding > kernel / 2 {
            assert!(matches!(made, Err(Error::Attribute { field: "padding", .. })));
        } else if starts.is_empty() {
            assert!(matches!(made, Err(Error::Shape { .. })));
        } else {
            prop_assert_eq!(made.unwrap(), vec![3, 2, starts.len()]);
            prop_assert!(starts.iter().all(|&s| (s..s + kernel as i64).any(|at| (0..size as i64).contains(&at))));
        }
    }
}

#[test]
fn the_other_ops() {
    let (image, features) = (vec![4, 6, 5], vec![7]);
    let shape = |op: Op, inputs: &[&Vec<usize>]| infer("node", &op, inputs);
    for op in [Op::Relu, Op::Gelu { approximate: Gelu::Tanh }, Op::Dropout { p: 0.5 }] {
        assert_eq!(shape(op.clone(), &[&image]).unwrap(), image);
        assert_eq!(shape(op, &[&features]).unwrap(), features);
    }
    assert_eq!(shape(Op::Flatten, &[&image]).unwrap(), [120]);
    assert_eq!(shape(Op::Flatten, &[&features]).unwrap(), features);
    assert_eq!(shape(Op::GlobalAvgPool, &[&image]).unwrap(), [4, 1, 1]);
    assert_eq!(shape(Op::AdaptiveAvgPool2d { output_size: [9, 2] }, &[&image]).unwrap(), [4, 9, 2]);
    assert_eq!(shape(Op::Concat { dim: 0 }, &[&image, &vec![2, 6, 5], &image]).unwrap(), [10, 6, 5]);
    assert_eq!(shape(Op::Concat { dim: 0 }, &[&features, &vec![1]]).unwrap(), [8]);
    assert_eq!(shape(Op::Add, &[&image, &image]).unwrap(), image);

    for wrong in [
        shape(Op::GlobalAvgPool, &[&features]),
        shape(Op::AdaptiveAvgPool2d { output_size: [1, 1] }, &[&features]),
        shape(Op::Concat { dim: 0 }, &[&image, &features]),
        shape(Op::Concat { dim: 0 }, &[&image, &vec![4, 5, 6]]),
        shape(Op::Add, &[&image, &vec![4, 6, 6]]),
        shape(Op::Linear { in_features: 4, out_features: 2, bias: true, weight_order: WeightOrder::OutIn }, &[&image]),
    ] {
        assert!(matches!(&wrong, Err(Error::Shape { node, .. }) if node == "node"), "{wrong:?}");
    }
    assert!(matches!(shape(Op::Input { dtype: Dtype::Float }, &[]), Err(Error::Input(_))));
}
