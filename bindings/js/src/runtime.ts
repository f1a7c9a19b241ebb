/** Run the two graphs of a bundle, whatever runs them, and believe nothing that comes out unseen. */

// B histories, L events in a history, D width, N items, Np items with pad rows, E bias entries, k answers

import { checkWhole } from "./arguments";
import { CONTEXT } from "./context";
import { itemVector, type Bundle } from "./bundle";
import { BundleDamaged, UsageError, XrecError } from "./errors";
import type { History } from "./history";
import type * as Queries from "./queries";
import type { Bias } from "./taste";

/** A float32 or int32 array and its shape, as it goes in and out of a graph. */
export interface Value {
  readonly data: Float32Array | Int32Array;
  readonly dims: readonly number[];
}

/** A graph that is ready to run: the seam to onnxruntime and to the engine in pure JavaScript. */
export interface Session {
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Run the graph; any error means that it can't. */
  run(feeds: Readonly<Record<string, Value>>): Promise<Readonly<Record<string, Value>>>;
  close(): Promise<void>;
}

/** Makes the session of a graph; it finds the external data in `bundle.items`. Any error means a malformed graph. */
export type CreateSession = (graph: Uint8Array, name: string, bundle: Bundle, threads: number) => Promise<Session>;

/** A row, its score, and its probability, null without a ranker or a context. */
export interface Scored {
  readonly row: number;
  readonly score: number;
  readonly probability: number | null;
}

/**
 * The scorer's question: `itemBias` is (Np,), the bundle's bias or a copy with -Infinity for what is forbidden. With a
 * `context` (5,) a bundle that has a ranker gives probabilities.
 */
export interface Question {
  readonly user: Float32Array;
  readonly k: number;
  readonly itemBias: Float32Array;
  readonly bias: Bias;
  readonly withPrior?: boolean;
  readonly context?: Float32Array | null;
}

const CODES = ["events", "devices", "gaps"] as const;
const SCORER_INPUTS = ["user", "item_bias", "item_prior", "bias_rows", "bias_values", "k"];
const SCORER_OUTPUTS = ["top_rows", "top_scores"];

/** The sessions of one bundle. */
export class Runtime {
  private constructor(
    private readonly bundle: Bundle,
    private readonly encoder: Session,
    private readonly scorer: Session,
    /** How searches are read; null where the bundle reads none. */
    readonly queries: typeof Queries | null,
    private readonly noPrior = new Float32Array(bundle.prior.length),
  ) {}

  /** Load both graphs; throw BundleDamaged `bundle.graph_malformed` where one can't be. */
  static async load(bundle: Bundle, create: CreateSession, threads: number): Promise<Runtime> {
    checkWhole("num_threads", threads, 0);
    const queries = bundle.manifest.vocabulary.queryBuckets ? await import("./queries") : null;
    const encoder = await load("encoder.onnx", bundle.encoder, ["vectors", ...CODES, ...(queries ? ["queries"] : [])], ["user"]);
    const more = (name: string) => (bundle.manifest.ranker ? [name] : []);
    const [inputs, outputs] = [[...SCORER_INPUTS, ...more("context")], [...SCORER_OUTPUTS, ...more("top_probabilities")]];
    const scorer = await load("scorer.onnx", bundle.scorer, inputs, outputs);
    return new Runtime(bundle, encoder, scorer, queries);

    async function load(name: string, graph: Uint8Array, inputs: readonly string[], outputs: readonly string[]) {
      const session = await orDamaged("bundle.graph_malformed", `${name} can't be loaded`, () =>
        create(graph, name, bundle, threads),
      );
      const found = namesOf(session.inputs, session.outputs);
      const expected = namesOf(inputs, outputs);
      if (found === expected) return session;
      throw new BundleDamaged("bundle.graph_malformed", `${name} has inputs and outputs ${found}; expected ${expected}`);
    }
  }

  /** Return the user vector of a history, (D,) float32; zeros for an empty one. */
  async encode(history: History): Promise<Float32Array> {
    return (await this.encodeBatch([history]))[0];
  }

  /** Return the user vectors of histories of one length, (D,) float32 each. */
  async encodeBatch(histories: readonly History[]): Promise<Float32Array[]> {
    const { width } = this.bundle.manifest;
    const length = histories.length ? histories[0].rows.length : 0;
    if (histories.some(({ rows }) => rows.length !== length)) {
      throw new UsageError("usage.histories", "the histories of a batch differ in length");
    }
    if (length === 0) return histories.map(() => new Float32Array(width));
    const dims = [histories.length, length];
    const vectors = joined(histories.flatMap(({ rows }) => Array.from(rows, (row) => itemVector(this.bundle, row))));
    const codes = CODES.map((name) => [name, { data: joined(histories.map((one) => one[name])), dims }]);
    const feeds = { vectors: { data: vectors, dims: [...dims, width] }, ...Object.fromEntries(codes) };
    if (this.queries) feeds.queries = this.queries.bucketTable(histories);
    const { user } = await run(this.encoder, "encoder.onnx", feeds);
    const isRight = user?.data instanceof Float32Array && user.data.length === histories.length * width;
    if (!isRight || !user.data.every(Number.isFinite)) {
      throw new BundleDamaged("bundle.graph_failed", "encoder.onnx gave no finite user vectors");
    }
    return histories.map((_, place) => (user.data as Float32Array).slice(place * width, (place + 1) * width));
  }

  /** Return the best `k` rows, best first, ties by lower row, fewer where the biases forbid the rest. */
  async top({ user, k, itemBias, bias, withPrior = true, context = null }: Question): Promise<Scored[]> {
    const { itemCount, width, ranker } = this.bundle.manifest;
    checkWhole("k", k, 1, itemCount);
    const answer = await run(this.scorer, "scorer.onnx", {
      user: { data: user, dims: [1, width] },
      item_bias: { data: itemBias, dims: [itemBias.length] },
      item_prior: { data: withPrior ? this.bundle.prior : this.noPrior, dims: [itemBias.length] },
      bias_rows: { data: Int32Array.from(bias.keys()), dims: [bias.size] },
      bias_values: { data: Float32Array.from(bias.values()), dims: [bias.size] },
      k: { data: Int32Array.of(k), dims: [1] },
      ...(ranker ? { context: { data: context ?? new Float32Array(CONTEXT.length), dims: [CONTEXT.length] } } : {}),
    });
    return checkedTop(answer, k, itemCount, ranker !== null && context !== null);
  }

  /** Let go of the sessions. */
  async close(): Promise<void> {
    await this.encoder.close();
    await this.scorer.close();
  }
}

function checkedTop(answer: Readonly<Record<string, Value>>, k: number, itemCount: number, isProbable: boolean): Scored[] {
  const [rows, scores, found] = [...SCORER_OUTPUTS, "top_probabilities"].map((name) => answer[name]?.data);
  const fail = (what: string): never => {
    throw new BundleDamaged("bundle.graph_failed", `scorer.onnx gave ${what}`);
  };
  const isWhole = rows instanceof Int32Array && rows.length === k && scores?.length === k;
  if (!isWhole || (isProbable && found?.length !== k)) fail(`not ${k} answers`);
  const top: Scored[] = [];
  for (let place = 0; place < k; place++) {
    const [row, score, probability] = [rows[place], scores[place], isProbable ? found[place] : null];
    if (score === -Infinity) continue;
    if (!Number.isFinite(score)) fail("a score that is not finite");
    if (row < 0 || row >= itemCount) fail("a row that is not there");
    if (probability !== null && !(probability > 0 && probability < 1)) fail("a probability that is not between 0 and 1");
    top.push({ row, score, probability });
  }
  return top;
}

function run(session: Session, name: string, feeds: Readonly<Record<string, Value>>) {
  return orDamaged("bundle.graph_failed", `${name} can't be run`, () => session.run(feeds));
}

async function orDamaged<T>(code: string, message: string, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (cause) {
    if (cause instanceof XrecError) throw cause;
    throw new BundleDamaged(code, `${message}: ${String(cause)}`, { cause });
  }
}

function namesOf(...sets: readonly (readonly string[])[]): string {
  return JSON.stringify(sets.map((names) => [...names].sort()));
}

/** Return arrays of one type and length as one. */
function joined<T extends Float32Array | Int32Array>(arrays: readonly T[]): T {
  const [{ constructor, length }] = arrays;
  const whole = new (constructor as new (length: number) => T)(arrays.length * length);
  arrays.forEach((array, place) => whole.set(array, place * length));
  return whole;
}
