/** Run a graph with onnxruntime, on the verified bytes; the external data are handed in, no file is read again. */

import type { InferenceSession, Tensor, TensorConstructor } from "onnxruntime-common";

import { BundleUnsupported } from "./errors";
import { checkGraph } from "./onnx/check";
import type { CreateSession, Session, Value } from "./runtime";

/** The part of onnxruntime-node and onnxruntime-web that is used. */
export interface Ort {
  readonly InferenceSession: { create(graph: Uint8Array, options: InferenceSession.SessionOptions): Promise<InferenceSession> };
  readonly Tensor: TensorConstructor;
}

/** Return the maker of sessions of an onnxruntime; `setThreads` is told before a session is made. */
export function ortSessions(
  load: () => Promise<Ort>,
  setThreads: (ort: Ort, threads: number) => void,
  providers: readonly string[] = ["cpu"],
): CreateSession {
  return async (graph, name, bundle, threads) => {
    checkGraph(graph, bundle.manifest.operators);
    const ort = await load();
    setThreads(ort, threads);
    try {
      return wrap(ort, await ort.InferenceSession.create(graph, optionsFor(name, bundle.items, threads, providers)));
    } catch (cause) {
      if (!/opset[^]*support|support[^]*opset/.test(String(cause))) throw cause;
      const message = `this onnxruntime is too old for ${name}: ${String(cause)}`;
      throw new BundleUnsupported("bundle.opset", message, { cause });
    }
  };
}

function optionsFor(
  name: string,
  items: Uint8Array,
  threads: number,
  executionProviders: readonly string[],
): InferenceSession.SessionOptions {
  return {
    executionProviders,
    externalData: name === "scorer.onnx" ? [{ path: "items.bin", data: items }] : [],
    // basic folds the encoder's stored int8 weights into float32 once; higher levels only rewrite nodes.
    graphOptimizationLevel: "basic",
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    logSeverityLevel: 4,
    // Prepacking the scorer's product would make a second copy of the table.
    extra: { session: { disable_prepacking: name === "scorer.onnx" ? "1" : "0", intra_op: { allow_spinning: "0" } } },
  };
}

function wrap(ort: Ort, session: InferenceSession): Session {
  return {
    inputs: session.inputNames,
    outputs: session.outputNames,
    async run(feeds) {
      const named = Object.entries(feeds).map(([name, value]) => [name, tensor(ort, value)]);
      const answers = await session.run(Object.fromEntries(named) as Record<string, Tensor>);
      return Object.fromEntries(Object.entries(answers).map(([name, { data, dims }]) => [name, { data, dims } as Value]));
    },
    close: () => session.release(),
  };
}

function tensor(ort: Ort, { data, dims }: Value): Tensor {
  return data instanceof Float32Array ? new ort.Tensor("float32", data, dims) : new ort.Tensor("int32", data, dims);
}
