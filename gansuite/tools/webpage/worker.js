"use strict";
// Runs the model beside the page, so that the page answers while it computes. Messages are
// {id, start} or {id, feeds}; the answer has the same id.
let ort, session;

async function unpacked(text) {
  const binary = atob(text), zipped = new Uint8Array(binary.length);
  for (let i = 0; i < zipped.length; i++) zipped[i] = binary.charCodeAt(i);
  const stream = new Blob([zipped]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function start(texts) {
  const bundle = new Blob([await unpacked(texts.bundle)], {type: "text/javascript"});
  ort = await import(URL.createObjectURL(bundle));
  ort.env.wasm.numThreads = 1; // more need a server that isolates the page
  ort.env.wasm.wasmBinary = (await unpacked(texts.wasm)).buffer;
  session = await ort.InferenceSession.create(await unpacked(texts.model));
  return texts.latents ? new Float32Array((await unpacked(texts.latents)).buffer) : null;
}

async function run(feeds) {
  const given = {};
  for (const [name, {type, data, dims}] of Object.entries(feeds))
    given[name] = new ort.Tensor(type, data, dims);
  const begun = performance.now();
  const {picture} = await session.run(given);
  const [, height, width] = picture.dims;
  return {data: picture.data, width, height, milliseconds: performance.now() - begun};
}

onmessage = async ({data: {id, texts, feeds}}) => {
  try {
    postMessage({id, answer: await (texts ? start(texts) : run(feeds))});
  } catch (error) {
    postMessage({id, error: String((error && error.message) || error)});
  }
};
