/** The engine without WebAssembly: it walks a graph node by node, with constants computed once while it loads. */

import { BundleUnsupported } from "../errors";
import type { CreateSession, Session, Value } from "../runtime";
import { readModel, type Graph } from "./model";
import { kernelOf, type Kernel } from "./operators";
import { Type, type Tensor } from "./tensor";

interface Step {
  readonly kernel: Kernel;
  readonly inputs: readonly (number | null)[];
  readonly outputs: readonly number[];
  /** The values that no later step reads. */
  readonly done: readonly number[];
}

/** Return a session of the engine; see {@link CreateSession}. */
export const createCoreSession: CreateSession = async (model, name, bundle) => {
  const graph = readModel(model, bundle.items);
  if (graph.opset > 21) throw unsupported(name, `opset ${graph.opset}`);
  return new CoreSession(graph, name);
};

function unsupported(name: string, what: string): BundleUnsupported {
  return new BundleUnsupported("bundle.opset", `the core engine of this SDK has no ${what}, which ${name} needs`);
}

class CoreSession implements Session {
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  private readonly slots = new Map<string, number>();
  private readonly constants: (Tensor | undefined)[] = [];
  private readonly steps: readonly Step[];

  constructor(graph: Graph, name: string) {
    this.inputs = graph.inputs.filter((input) => !graph.constants.has(input));
    this.outputs = graph.outputs;
    for (const [constant, tensor] of graph.constants) this.constants[this.slot(constant)] = tensor;
    for (const input of this.inputs) this.slot(input);
    this.steps = withLastUses(this.plan(graph, name), this.outputs.map((output) => this.slot(output)));
  }

  async run(feeds: Readonly<Record<string, Value>>): Promise<Readonly<Record<string, Value>>> {
    const values = this.constants.slice();
    for (const input of this.inputs) {
      const { data, dims } = feeds[input];
      values[this.slot(input)] = { type: data instanceof Float32Array ? Type.float : Type.int32, dims, data };
    }
    for (const { kernel, inputs, outputs, done } of this.steps) {
      const results = kernel(...inputs.map((slot) => (slot === null ? undefined : values[slot])));
      if (Array.isArray(results)) outputs.forEach((slot, place) => (values[slot] = results[place]));
      else values[outputs[0]] = results;
      for (const slot of done) values[slot] = undefined;
    }
    return Object.fromEntries(this.outputs.map((output) => [output, values[this.slot(output)] as Value]));
  }

  async close(): Promise<void> {}

  private slot(value: string): number {
    let slot = this.slots.get(value);
    if (slot === undefined) this.slots.set(value, (slot = this.slots.size));
    return slot;
  }

  /** Return the steps; nodes of constants alone become constants, except views of the item table. */
  private plan(graph: Graph, name: string): Omit<Step, "done">[] {
    const steps: Omit<Step, "done">[] = [];
    const known = new Set([...graph.constants.keys(), ...this.inputs, ""]);
    for (const node of graph.nodes) {
      const kernel = kernelOf(node);
      if (!kernel) throw unsupported(name, `operator ${node.operator}`);
      const unknown = node.inputs.find((input) => !known.has(input));
      if (unknown !== undefined) throw new Error(`${node.operator} reads ${unknown}, which nothing has written`);
      node.outputs.forEach((output) => known.add(output));
      const inputs = node.inputs.map((input) => (input === "" ? null : this.slot(input)));
      const outputs = node.outputs.map((output) => this.slot(output));
      const isConstant = inputs.every((slot) => slot === null || this.constants[slot]);
      if (!isConstant || node.inputs.some((input) => graph.external.has(input))) {
        steps.push({ kernel, inputs, outputs });
        continue;
      }
      const results = kernel(...inputs.map((slot) => (slot === null ? undefined : this.constants[slot])));
      [results].flat().forEach((result, place) => (this.constants[outputs[place]] = result));
    }
    const missing = graph.outputs.find((output) => !known.has(output));
    if (missing !== undefined) throw new Error(`nothing writes ${missing}`);
    this.dropUnread(steps);
    return steps;
  }

  /** The stored int8 weights have become float32 ones. */
  private dropUnread(steps: readonly Omit<Step, "done">[]): void {
    const read = new Set([...steps.flatMap(({ inputs }) => inputs), ...this.outputs.map((output) => this.slot(output))]);
    this.constants.forEach((_, slot) => {
      if (!read.has(slot)) this.constants[slot] = undefined;
    });
  }
}

function withLastUses(steps: readonly Omit<Step, "done">[], kept: readonly number[]): Step[] {
  const seen = new Set<number | null>([null, ...kept]);
  const done: number[][] = steps.map(() => []);
  for (let place = steps.length - 1; place >= 0; place--) {
    for (const slot of [...steps[place].inputs, ...steps[place].outputs]) {
      if (slot === null || seen.has(slot)) continue;
      seen.add(slot);
      done[place].push(slot);
    }
  }
  return steps.map((step, place) => ({ ...step, done: done[place] }));
}
