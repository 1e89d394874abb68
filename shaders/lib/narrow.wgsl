// Four numbers as halves: conversion of what f16 cannot hold is undefined.
fn narrow(v: vec4<f32>) -> vec4<f16> {
    return vec4<f16>(clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
}
