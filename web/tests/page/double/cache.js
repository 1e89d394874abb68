// Cached models as `globalThis.double.cached` lists them.

export const cache = {
  async list() {
    return (globalThis.doubleCached ??= [...(globalThis.double?.cached ?? [])]);
  },
  async remove(key) {
    globalThis.doubleCalls.push({ call: "remove", key });
    globalThis.doubleCached = (await cache.list()).filter((entry) => entry.key !== key);
  },
  async estimate() {
    return { usage: 12_000_000, quota: 2_000_000_000 };
  },
};
