// What went wrong, for a person: a headline, what it means, what to do.

import { bytes } from "./figures.js";

/** Error kinds: the engine's `Error.name` gives headline and advice; its message stays beside them. */
const KINDS = {
  Adapter: ["No GPU for this page", []],
  OutOfMemory: [
    "The GPU has no memory left for this",
    [
      "Set a shorter context length: its cache shrinks with it.",
      "Take a smaller file of the same model, such as Q4_0 or Q4_K.",
      "Close other tabs and programs that use the GPU.",
    ],
  ],
  DeviceLost: [
    "The GPU went away",
    ["Load the model again. If it happens often, update the graphics driver or run the check tab and report what it finds."],
  ],
  Format: [
    "This is not a file that can be read",
    ["A GGUF file of version 2 or 3 is needed. If it was downloaded, it may be incomplete: compare its size with the source's."],
  ],
  Unsupported: [
    "This model is of a kind that anygpu does not run",
    ["Models of the llama architecture run: Llama 2 and 3, Mistral, TinyLlama, SmolLM, in the common quantisations."],
  ],
  Shape: ["A setting or a tensor has a size that does not fit", []],
  Tokenizer: ["The file's tokenizer or chat template cannot be used", ["Another conversion of the same model may have a complete one."]],
  Io: [
    "The data could not be read",
    [
      "For a URL: see that it opens in a tab of its own, and that its server lets other sites read it (CORS).",
      "For a file: it may have been moved or changed since it was chosen. Choose it again.",
    ],
  ],
  Cancelled: ["Stopped", []],
};

/** @returns {{ title: string, message: string, advice: string[] }} */
export function explain(error) {
  const message = error?.message || String(error);
  if (error?.name === "QuotaExceededError") {
    return {
      title: "The browser's storage is full",
      message,
      advice: ["Remove cached models in the Model tab, or free disk space."],
    };
  }
  if (Object.hasOwn(KINDS, error?.name)) {
    const [title, advice] = KINDS[error.name];
    return { title, message, advice };
  }
  return {
    title: "Something went wrong in the page itself",
    message: error?.name ? `${error.name}: ${message}` : message,
    advice: ["Reload the page. If it happens again, report it with these words."],
  };
}

/** One sentence for what the engine reports while it works. */
export function notice(event) {
  switch (event.type) {
    case "device-lost":
      return { topic: "device", kind: "warn", text: "The GPU was lost. The engine is being rebuilt; a reply that was being written goes on after that.", message: event.message };
    case "rebuilt":
      return { topic: "device", kind: "good", text: "The GPU is back and the model is loaded again." };
    case "cache-failed":
      return { topic: "cache", kind: "warn", text: "The model could not be kept for the next visit. It runs, but will be downloaded again.", message: event.message };
    default:
      return { kind: "warn", text: event.type, message: event.message };
  }
}

/** What an adapter offers beyond the baseline, in words. */
export function features(adapter) {
  const names = { integerDot: "integer dot products", pipelineCache: "pipeline cache", shaderF16: "f16" };
  return Object.entries(adapter?.features ?? {})
    .filter(([, has]) => has)
    .map(([name]) => names[name] ?? name);
}

/** How a reply ended, where the reader should know. */
export function ending(finish) {
  switch (finish) {
    case "length":
      return "cut at the longest reply";
    case "cancelled":
      return "stopped";
    default:
      return null;
  }
}

/** @returns {"chrome" | "edge" | "firefox" | "safari" | "other"} */
export function browser(agent = navigator.userAgent) {
  if (/\bEdg(A|iOS)?\//.test(agent)) return "edge";
  if (/\b(Firefox|FxiOS)\//.test(agent)) return "firefox";
  if (/(Chrome|Chromium|CriOS)\//.test(agent)) return "chrome";
  if (/\bSafari\//.test(agent)) return "safari";
  return "other";
}

const linux = (agent) => /\bLinux\b/.test(agent) && !/\bAndroid\b/.test(agent);
const apple = (agent) => /\b(iPhone|iPad|iPod)\b/.test(agent);

/**
 * Why there is no WebGPU here and what to do in each browser, the reader's own first.
 *
 * @param {{ secure?: boolean, gpu?: boolean, agent?: string, address?: string }} found
 * @returns {{ title: string, why: string, browsers: { name: string, own: boolean, steps: string[] }[] }}
 */
export function withoutWebGpu({
  secure = isSecureContext,
  gpu = Boolean(navigator.gpu),
  agent = navigator.userAgent,
  address = location.origin,
} = {}) {
  if (!secure) {
    return {
      title: "This address is not secure, so there is no WebGPU",
      why: `Browsers offer WebGPU to https pages and to localhost only. This page came from ${address}.`,
      browsers: [
        {
          name: "Any browser",
          own: true,
          steps: [
            "Open the page through https, or on the machine that serves it as http://localhost with the same port.",
            "From another machine: forward the port first, as in ssh -L 8080:localhost:8080 HOST, and open http://localhost:8080.",
          ],
        },
      ],
    };
  }
  const own = browser(agent);
  const onIos = apple(agent);
  const list = [
    {
      id: ["chrome", "edge"],
      name: "Chrome and Edge",
      steps: [
        "Version 113 or later on Windows and macOS, 121 or later on Android 12. Update if yours is older.",
        "In the settings under System, switch on “Use graphics acceleration when available” and restart the browser.",
        ...(linux(agent)
          ? [
              "On Linux it is on for newer Intel GPUs since 144 and for NVIDIA (driver 535.183 or later) since 147. For others start the browser with: --enable-unsafe-webgpu --ozone-platform=x11 --use-angle=vulkan --enable-features=Vulkan,VulkanFromANGLE",
              "Or open chrome://flags, enable “Unsafe WebGPU Support” and “Vulkan”, and relaunch. A Vulkan driver is needed; on Debian and Ubuntu: apt install mesa-vulkan-drivers.",
            ]
          : []),
        "chrome://gpu (edge://gpu) says under “WebGPU” why it is off.",
      ],
    },
    {
      id: ["firefox"],
      name: "Firefox",
      steps: [
        "Version 141 or later on Windows, 147 or later on macOS with Apple silicon.",
        ...(linux(agent) || own !== "firefox"
          ? ["On Linux: Firefox Nightly, or open about:config and set dom.webgpu.enabled to true."]
          : ["Elsewhere: open about:config and set dom.webgpu.enabled to true."]),
        "about:support says under “Graphics” whether WebGPU is blocked by the driver.",
      ],
    },
    {
      id: ["safari"],
      name: "Safari",
      steps: [
        "Version 26 or later, on macOS 26, iOS 26 or iPadOS 26.",
        onIos
          ? "Other browsers on iPhone and iPad use the same engine: the system itself must be updated."
          : "On earlier macOS versions: Chrome or Edge run this page.",
      ],
    },
  ];
  const id = onIos ? "safari" : own;
  const browsers = list.map(({ id: ids, ...rest }) => ({ ...rest, own: ids.includes(id) }));
  browsers.sort((a, b) => Number(b.own) - Number(a.own));
  return gpu
    ? {
        title: "The browser found no GPU that it can use",
        why: "It has WebGPU, but offers no adapter: graphics acceleration is off, the driver is on its list of faulty ones, or there is no GPU.",
        browsers,
      }
    : {
        title: "This browser has no WebGPU",
        why: "anygpu runs models on the GPU through WebGPU, which this browser lacks or has switched off.",
        browsers,
      };
}

/** One line about loading. */
export function progress(p) {
  if (!p) return "Starting the engine";
  if (p.phase === "compile") return ["Compiling kernels for this GPU", p.totalBytes > 0 && `${p.loadedBytes} of ${p.totalBytes}`].filter(Boolean).join(" · ");
  const what = p.phase === "load" ? "Moving weights to the GPU" : p.fromCache ? "Reading from the cache" : "Downloading";
  const share = p.totalBytes > 0 ? `${Math.floor((100 * p.loadedBytes) / p.totalBytes)} %` : null;
  const amount = p.totalBytes > 0 ? `${bytes(p.loadedBytes)} of ${bytes(p.totalBytes)}` : p.loadedBytes > 0 ? bytes(p.loadedBytes) : null;
  return [what, share, amount].filter(Boolean).join(" · ");
}
