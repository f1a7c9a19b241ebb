/** Time one engine on one bundle, wherever it runs: graphs alone, and recommend() after an event was recorded. */

const K = 10;
const WARM = 300;

/** Return the milliseconds of each way, median, 99th percentile and least, and the rows of the first list. */
export async function measure(load, bundle, key, asked, rounds) {
  const start = performance.now();
  const recommender = await load(bundle, { trustedKeys: [key] });
  const loaded = performance.now() - start;
  const { runtime } = recommender;
  const itemBias = recommender.bundle.bias;
  const graphs = async ({ codes, bias }) => runtime.top({ user: await runtime.encode(codes), k: K, itemBias, bias });
  const cases = asked.map(({ history, bias }) => ({
    codes: Object.fromEntries(Object.entries(history).map(([name, values]) => [name, Int32Array.from(values)])),
    bias: new Map(bias.map((row) => [row, -Infinity])),
  }));
  const first = [];
  for (const one of cases) first.push((await graphs(one)).map(({ row }) => row));
  await recommender.setConsent("personalise", true);
  for (const row of cases[0].codes.rows) await recommender.record("purchase", `sku-${row}`, { device: "phone" });
  const view = ({ codes }) => recommender.record("view", `sku-${codes.rows[0]}`, { device: "phone" });
  // One way after the other, as latency.py times Python: what runs between two calls takes their place in the caches.
  const times = { graphs: await timesOf(graphs, async () => {}), recommend: await timesOf(() => recommender.recommend({ k: K }), view) };
  await recommender.close();
  const said = Object.entries(times).map(([way, values]) => [way, quantiles(values)]);
  return { loaded, ...Object.fromEntries(said), first };

  async function timesOf(answer, prepare) {
    const values = [];
    for (let round = -WARM; round < rounds; round++) {
      const one = cases[(round + WARM) % cases.length];
      await prepare(one);
      const start = performance.now();
      await answer(one);
      if (round >= 0) values.push(performance.now() - start);
    }
    return values;
  }
}

function quantiles(values) {
  const sorted = values.toSorted((a, b) => a - b);
  return [0.5, 0.99, 0].map((share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]);
}
