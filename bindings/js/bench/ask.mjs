/** Time one engine on one bundle, wherever it runs: graphs alone, and recommend() after an event was recorded. */

const K = 10;
const WARM = 30;

/** Return the milliseconds of each way, median, 99th percentile and least, and the rows of the first list. */
export async function measure(load, bundle, key, cases, rounds) {
  const start = performance.now();
  const recommender = await load(bundle, { trustedKeys: [key] });
  const loaded = performance.now() - start;
  const { runtime } = recommender;
  const itemBias = recommender.bundle.bias;
  const graphs = async ({ history, bias }) => {
    const arrays = Object.entries(history).map(([name, codes]) => [name, Int32Array.from(codes)]);
    const forbidden = new Map(bias.map((row) => [row, -Infinity]));
    return runtime.top({ user: await runtime.encode(Object.fromEntries(arrays)), k: K, itemBias, bias: forbidden });
  };
  const first = [];
  for (const one of cases) first.push((await graphs(one)).map(({ row }) => row));
  await recommender.setConsent("personalise", true);
  for (const row of cases[0].history.rows) await recommender.record("purchase", `sku-${row}`, { device: "phone" });
  const view = ({ history }) => recommender.record("view", `sku-${history.rows[0]}`, { device: "phone" });
  const times = { graphs: [], recommend: [] };
  for (let round = -WARM; round < rounds; round++) {
    const one = cases[(round + WARM) % cases.length];
    const taken = { graphs: await timed(() => graphs(one)) };
    await view(one);
    taken.recommend = await timed(() => recommender.recommend({ k: K }));
    for (const way of Object.keys(times)) if (round >= 0) times[way].push(taken[way]);
  }
  await recommender.close();
  const said = Object.entries(times).map(([way, values]) => [way, quantiles(values)]);
  return { loaded, ...Object.fromEntries(said), first };
}

async function timed(act) {
  const start = performance.now();
  await act();
  return performance.now() - start;
}

function quantiles(values) {
  const sorted = values.toSorted((a, b) => a - b);
  return [0.5, 0.99, 0].map((share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]);
}
