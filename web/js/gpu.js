// The way round what wgpu cannot do in browsers: asking for subgroups, compiling pipelines side by side, and reading
// internal errors. It stands between wgpu and the browser's own objects, in the worker only.

import { failure } from "./errors.js";

/** What is told of the devices that are opened. */
export const listeners = {
  /** @param {string} message */
  lost(message) {},
  /** @param {string} message */
  fault(message) {},
};

/** The devices that live, newest last. */
const devices = new Set();
/** Shader modules to their source. */
const sources = new WeakMap();
/** The newest device's pipelines that wait for wgpu to ask for them, by source. */
let prepared = new Map();
/** What compiles them, under way or done, by source. */
let begun = new Map();
let current = null;
/** Shaders that an earlier load of the same model needed, begun with each device. */
let noted = [];
/** Those that this load had compiled, by source. */
let asked = new Map();

const wgpuRequest = globalThis.GPUAdapter?.prototype.requestDevice;
if (wgpuRequest) {
  GPUAdapter.prototype.requestDevice = async function (descriptor = {}) {
    const features = new Set(descriptor.requiredFeatures ?? []);
    // wgpu 30's table of features lacks them in browsers.
    if (this.features.has("subgroups")) features.add("subgroups");
    const device = await wgpuRequest.call(this, { ...descriptor, requiredFeatures: [...features] });
    adopt(device);
    return device;
  };
}

function adopt(device) {
  current = device;
  prepared = new Map();
  begun = new Map();
  devices.add(device);
  const createModule = device.createShaderModule.bind(device);
  const createPipeline = device.createComputePipeline.bind(device);
  device.createShaderModule = (descriptor) => {
    const module = prepared.get(descriptor.code)?.module ?? createModule(descriptor);
    sources.set(module, descriptor.code);
    return module;
  };
  device.createComputePipeline = (descriptor) => {
    const source = sources.get(descriptor.compute.module);
    const found = prepared.get(source)?.pipeline;
    // wgpu's side keeps it from here on.
    if (found) prepared.delete(source);
    return found ?? createPipeline(descriptor);
  };
  // wgpu reads validation and memory errors and panics at any other: a driver that refuses a shader.
  device.addEventListener("uncapturederror", (event) => {
    if (event.error instanceof GPUValidationError || event.error instanceof GPUOutOfMemoryError) return;
    event.stopImmediatePropagation();
    listeners.fault(event.error.message);
  });
  device.lost.then((info) => {
    const unexpected = devices.delete(device);
    if (unexpected) listeners.lost(info.message || `the browser gave no reason (${info.reason})`);
  });
  begin(noted);
}

/** What the next devices begin to compile at once, `{ kernel, source, accesses }` each: it is ready when the weights are. */
export function expect(shaders) {
  noted = shaders;
  asked = new Map();
}

/** What was compiled since [`expect`], in the same form. */
export function compiled() {
  return [...asked.values()];
}

/** How many were begun with the device, and how many of them were then asked for. */
export function expected() {
  return { begun: noted.length, used: noted.filter(({ source }) => asked.has(source)).length };
}

/** The browser's adapter in the words that the engine takes. */
export async function describe() {
  if (!globalThis.navigator?.gpu) {
    throw failure("Adapter", "this browser has no WebGPU: expected navigator.gpu, in a secure context (https or localhost)");
  }
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw failure("Adapter", "the browser offers no GPU adapter: expected one from requestAdapter()");
  const { description, vendor, architecture, device } = adapter.info;
  return JSON.stringify({
    name: description || [vendor, architecture, device].filter(Boolean).join(" ") || "WebGPU adapter",
    subgroups: adapter.features.has("subgroups"),
    // Browsers emulate it where a GPU has no instruction for it, as Apple's have none: slower than floats.
    integerDot: vendor !== "apple" && (navigator.gpu.wgslLanguageFeatures?.has("packed_4x8_integer_dot_product") ?? false),
  });
}

/** Compiles shaders side by side; one that is refused is left to the synchronous way, which says why. */
export async function compile(json) {
  const shaders = JSON.parse(json);
  for (const shader of shaders) asked.set(shader.source, shader);
  await begin(shaders);
}

function begin(shaders) {
  const device = current;
  const [into, started] = [prepared, begun];
  const entry = (binding, type) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type } });
  const layout = (access, binding) => entry(binding, access === "r" ? "read-only-storage" : "storage");
  // As src/gpu/pipeline.rs has them: tensors, and the parameters at 15.
  const params = entry(15, "uniform");
  const one = async ({ kernel, source, accesses }) => {
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ label: kernel, code: source });
    const group = device.createBindGroupLayout({ label: kernel, entries: [...[...accesses].map(layout), params] });
    const pipelineLayout = device.createPipelineLayout({ label: kernel, bindGroupLayouts: [group] });
    const refused = device.popErrorScope();
    const pipeline = device.createComputePipelineAsync({
      label: kernel,
      layout: pipelineLayout,
      compute: { module, entryPoint: "main" },
    });
    const [error, made] = await Promise.allSettled([refused, pipeline]);
    if (error.value === null && made.status === "fulfilled") into.set(source, { module, pipeline: made.value });
  };
  for (const shader of shaders) if (!started.has(shader.source)) started.set(shader.source, one(shader));
  return Promise.all(shaders.map(({ source }) => started.get(source)));
}

/** Forgets the devices: what happens to them from now on is wanted. */
export function release() {
  devices.clear();
  prepared = new Map();
  begun = new Map();
  current = null;
  expect([]);
}

/** Destroys the newest device as a driver's reset would. */
export function lose() {
  current?.destroy();
}

/** The messages of the browser's compiler for a shader, errors only. */
export async function compilerErrors(source) {
  const device = current;
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ code: source });
  await device.popErrorScope();
  const { messages } = await module.getCompilationInfo();
  return messages.filter(({ type }) => type === "error").map(({ lineNum, message }) => `${lineNum}: ${message}`);
}
