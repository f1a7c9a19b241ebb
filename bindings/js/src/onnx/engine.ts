/** The engine without WebAssembly: it walks a graph node by node, with constants computed once while it loads. */

import { BundleUnsupported } from "../errors";
import type { CreateSession, Session, Value } from "../runtime";
import { readModel, type Graph, type Node } from "./model";
import { kernelOf, type Kernel } from "./operators";
import { demand, Type, type Tensor } from "./tensor";

interface Step {
  readonly node: Node;
  readonly kernel: Kernel;
  /** The values that no later step reads. */
  readonly done: readonly string[];
}

/** Return a session of the engine; see {@link CreateSession}. */
export const createCoreSession: CreateSession = async (model, name, bundle) => {
  const graph = readModel(model, bundle.items);
  if (graph.opset > 21) throw unsupported(name, `opset ${graph.opset}`);
  for (const { operator } of graph.nodes) named(operator, () => demand(bundle.manifest.operators.includes(operator)));
  return new CoreSession(graph, name);
};

function unsupported(name: string, what: string): BundleUnsupported {
  return new BundleUnsupported("bundle.opset", `core has no ${what}, which ${name} needs`);
}

type Values = Map<string, Tensor>;

class CoreSession implements Session {
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  private readonly constants: Values;
  private readonly steps: readonly Step[];

  constructor(graph: Graph, name: string) {
    this.inputs = graph.inputs.filter((input) => !graph.constants.has(input));
    this.outputs = graph.outputs;
    const constants = new Map(graph.constants);
    this.steps = withLastUses(plan(graph, name, this.inputs, constants), this.outputs);
    // What no step reads goes: the stored int8 weights have become float32 ones.
    const read = new Set([...this.outputs, ...this.steps.flatMap(({ node }) => node.inputs)]);
    this.constants = new Map([...constants].filter(([constant]) => read.has(constant)));
  }

  async run(feeds: Readonly<Record<string, Value>>): Promise<Readonly<Record<string, Value>>> {
    const values = new Map(this.constants);
    for (const input of this.inputs) {
      const { data, dims } = feeds[input];
      values.set(input, { type: data instanceof Float32Array ? Type.float : Type.int32, dims, data });
    }
    for (const { node, kernel, done } of this.steps) {
      compute(node, kernel, values);
      for (const value of done) values.delete(value);
    }
    return Object.fromEntries(this.outputs.map((output) => [output, values.get(output) as Value]));
  }

  async close(): Promise<void> {}
}

function compute({ operator, inputs, outputs }: Node, kernel: Kernel, values: Values): void {
  const results = [named(operator, () => kernel(...inputs.map((input) => values.get(input))))].flat();
  outputs.forEach((output, place) => values.set(output, results[place]));
}

/** Let an error say in which operator it was. */
function named<T>(operator: string, act: () => T): T {
  try {
    return act();
  } catch (cause) {
    throw new Error(`${operator}: ${String(cause)}`, { cause });
  }
}

/** Return the steps; nodes of constants alone become constants, except views of the item table. */
function plan(graph: Graph, name: string, inputs: readonly string[], constants: Values): Omit<Step, "done">[] {
  const steps: Omit<Step, "done">[] = [];
  const known = new Set([...constants.keys(), ...inputs, ""]);
  const demandKnown = (values: readonly string[]) => {
    const unknown = values.find((value) => !known.has(value));
    if (unknown !== undefined) throw new Error(`nothing writes ${unknown}`);
  };
  for (const node of graph.nodes) {
    const kernel = named(node.operator, () => kernelOf(node));
    if (!kernel) throw unsupported(name, `operator ${node.operator}`);
    demandKnown(node.inputs);
    node.outputs.forEach((output) => known.add(output));
    const isConstant = node.inputs.every((input) => input === "" || (constants.has(input) && !graph.external.has(input)));
    if (isConstant) compute(node, kernel, constants);
    else steps.push({ node, kernel });
  }
  demandKnown(graph.outputs);
  return steps;
}

function withLastUses(steps: readonly Omit<Step, "done">[], kept: readonly string[]): Step[] {
  const seen = new Set(kept);
  const backwards = [...steps].reverse().map((step) => {
    const done = [...step.node.inputs, ...step.node.outputs].filter((value) => !seen.has(value));
    done.forEach((value) => seen.add(value));
    return { ...step, done };
  });
  return backwards.reverse();
}
