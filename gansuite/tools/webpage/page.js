"use strict";
// A picture is {data, width, height}: bytes, channel by channel within a pixel, row by row.
const $ = (id) => document.getElementById(id);
const about = JSON.parse($("about").textContent);
const C = about.channels;
const translates = about.function !== "pictures";
const named = {source: "", reference: ""}; // the names of the files
const given = {source: null, reference: null}; // the pictures
let latents = null;

function say(text, wrong = "") {
  $("status").textContent = text;
  $("alert").textContent = wrong;
}

// -- the worker -------------------------------------------------------------------------------
const code = new Blob([$("worker").textContent], {type: "text/javascript"});
const worker = new Worker(URL.createObjectURL(code));
const waiting = new Map();
let asked = 0;

function ask(message) {
  return new Promise((resolve, reject) => {
    waiting.set(++asked, {resolve, reject});
    worker.postMessage({id: asked, ...message});
  });
}
worker.onmessage = ({data: {id, answer, error}}) => {
  const {resolve, reject} = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(answer);
  else reject(new Error(error));
};

// -- pictures ---------------------------------------------------------------------------------
async function decoded(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none",
    });
  } catch {
    throw new Error(`${file.name || "This"} is no picture that this browser can read.`);
  }
  return drawn(bitmap, bitmap.width, bitmap.height);
}

// What lies on white behind it where it is transparent; at most 4 times as large as is worked on.
function drawn(image, width, height) {
  const share = Math.min(1, (4 * about.most) / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * share));
  canvas.height = Math.max(1, Math.round(height * share));
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const rgba = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const data = new Uint8Array(canvas.width * canvas.height * C);
  for (let i = 0, o = 0; i < rgba.length; i += 4) {
    if (C === 3) {
      data[o++] = rgba[i];
      data[o++] = rgba[i + 1];
      data[o++] = rgba[i + 2];
    } else data[o++] = (19595 * rgba[i] + 38470 * rgba[i + 1] + 7471 * rgba[i + 2] + 32768) >> 16;
  }
  return {data, width: canvas.width, height: canvas.height, from: [width, height]};
}

function show(canvas, picture) {
  canvas.width = picture.width;
  canvas.height = picture.height;
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  for (let i = 0, o = 0; o < image.data.length; o += 4, i += C) {
    image.data[o] = picture.data[i];
    image.data[o + 1] = picture.data[C === 3 ? i + 1 : i];
    image.data[o + 2] = picture.data[C === 3 ? i + 2 : i];
    image.data[o + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  canvas.hidden = false;
  canvas.classList.toggle("small", Math.max(canvas.width, canvas.height) <= 160);
}

// Bicubic (a = -0.5) and antialiased, one direction after the other, as Pillow does it.
function resized(picture, width, height) {
  const cubic = (x) => {
    x = Math.abs(x);
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
  };
  // of lines of n pixels, m in each: where pixel i of line j begins, before and after
  function along(source, lines, n, m, at, to) {
    if (n === m) return source;
    const made = new Uint8Array(lines * m * C), scale = n / m, wide = Math.max(1, scale);
    for (let o = 0; o < m; o++) {
      const centre = (o + 0.5) * scale;
      const first = Math.max(0, Math.trunc(centre - 2 * wide + 0.5));
      const last = Math.min(n, Math.trunc(centre + 2 * wide + 0.5));
      const weights = [];
      for (let i = first; i < last; i++) weights.push(cubic((i - centre + 0.5) / wide));
      const total = weights.reduce((a, b) => a + b, 0);
      for (let line = 0; line < lines; line++)
        for (let c = 0; c < C; c++) {
          let sum = 0;
          for (let k = 0; k < weights.length; k++) sum += weights[k] * source[at(line, first + k) + c];
          made[to(line, o) + c] = Math.min(255, Math.max(0, Math.floor(sum / total + 0.5)));
        }
    }
    return made;
  }
  const {width: w, height: h} = picture;
  const across = along(picture.data, h, w, width, (y, x) => (y * w + x) * C, (y, x) => (y * width + x) * C);
  const place = (x, y) => (y * width + x) * C;
  return {data: along(across, width, h, height, place, place), width, height};
}

// A window of the picture; outside of it lies its reflection.
function windowed(picture, left, top, width, height) {
  const mirrored = (i, n) => {
    if (n === 1) return 0;
    const period = 2 * (n - 1), k = ((i % period) + period) % period;
    return k < n ? k : period - k;
  };
  const data = new Uint8Array(width * height * C);
  for (let y = 0, o = 0; y < height; y++) {
    const row = mirrored(y + top, picture.height) * picture.width;
    for (let x = 0; x < width; x++) {
      const i = (row + mirrored(x + left, picture.width)) * C;
      for (let c = 0; c < C; c++) data[o++] = picture.data[i + c];
    }
  }
  return {data, width, height};
}

// The size to work at: the shorter side as in training, or as it is; the longer one bounded.
function worked(picture, choice) {
  const {width, height} = picture;
  const factor = choice === "own" ? 1 : (Number(choice) * about.size) / Math.min(width, height);
  const share = Math.min(factor, about.most / Math.max(width, height));
  return [width, height].map((side) => Math.max(1, Math.round(side * share)));
}

// -- the model --------------------------------------------------------------------------------
const bytes = (p) => ({type: "uint8", data: p.data, dims: [1, p.height, p.width, C]});
const numbers = (list, dims) => ({type: "float32", data: Float32Array.from(list), dims});

function labels() {
  const boxes = [...document.querySelectorAll("[data-label]")], sets = about.label_sets.length;
  const values = boxes.map((box) => (box.checked ? 1 : 0));
  if (sets > 1) {
    const chosen = boxes.find((box) => box.checked);
    for (let k = 0; k < sets; k++) values.push(chosen && Number(chosen.dataset.set) === k ? 1 : 0);
  }
  return numbers(values, [1, values.length]);
}

async function translated() {
  const [width, height] = worked(given.source, $("size").value);
  const seen = resized(given.source, width, height), {stride, size, fixed} = about;
  const [w, h] = [width, height].map((n) => Math.ceil(Math.max(n, 16) / stride) * stride);
  const left = Math.floor((w - width) / 2), top = Math.floor((h - height) / 2);
  const feeds = {image: bytes(fixed ? resized(seen, size, size) : windowed(seen, -left, -top, w, h))};
  if (about.inputs.includes("label")) feeds.label = labels();
  if (about.inputs.includes("reference")) {
    const style = resized(given.reference, ...(fixed ? [size, size] : worked(given.reference, "1")));
    const sides = [style.width, style.height].map((n) => (fixed ? n : Math.max(stride, n - (n % stride))));
    const [x, y] = [style.width - sides[0], style.height - sides[1]].map((n) => Math.floor(n / 2));
    feeds.reference = bytes(windowed(style, x, y, ...sides));
    feeds.strength = numbers([$("strength").value], [1]);
  }
  show($("seen"), seen);
  const made = await ask({feeds});
  show($("made"), fixed ? resized(made, width, height) : windowed(made, left, top, width, height));
  const [before, after] = given.source.from, reduced = Math.max(before, after) > about.most;
  const why = reduced && $("size").value === "own" ? `, reduced from ${before} × ${after}` : "";
  return `${width} × ${height}${why}, made in ${time(made.milliseconds)}.`;
}

function latent() {
  const d = about.z, t = Number($("share").value);
  const [a, b] = ["seed", "towards"].map((id) => Number($(id).value)).map((n) => latents.subarray(n * d, (n + 1) * d));
  const dot = (p, q) => p.reduce((sum, v, i) => sum + v * q[i], 0);
  const angle = Math.acos(Math.min(1, Math.max(-1, dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b)))));
  if (about.latent !== "normal" || angle < 1e-6) return a.map((v, i) => (1 - t) * v + t * b[i]);
  const [p, q] = [Math.sin((1 - t) * angle), Math.sin(t * angle)].map((s) => s / Math.sin(angle));
  return a.map((v, i) => p * v + q * b[i]);
}

async function sampled() {
  for (const id of ["seed", "towards"])
    if (!/^\d+$/.test($(id).value) || Number($(id).value) >= about.seeds)
      throw new Error(`A seed is a whole number from 0 to ${about.seeds - 1}.`);
  const feeds = {z: numbers(latent(), [1, about.z])};
  if (about.inputs.includes("truncation")) feeds.truncation = numbers([$("truncation").value], [1]);
  const made = await ask({feeds});
  show($("made"), made);
  return `${made.width} × ${made.height}, made in ${time(made.milliseconds)}.`;
}

const time = (ms) => (ms < 1000 ? `${Math.max(1, Math.round(ms))} ms` : `${(ms / 1000).toFixed(1)} s`);

// What is asked for while it computes comes next, and only the last of it.
let again = false, busy = true;
async function update() {
  again = true;
  if (busy || (translates && !given.source)) return;
  if (about.inputs.includes("reference") && !given.reference) return say("Now choose the style.");
  busy = true;
  while (again) {
    again = false;
    say("Computing …");
    document.body.setAttribute("aria-busy", "true");
    try {
      say(await (translates ? translated() : sampled()));
      $("save").disabled = false;
    } catch (error) {
      say("", error.message);
    }
  }
  document.body.removeAttribute("aria-busy");
  busy = false;
}

// -- what is pressed --------------------------------------------------------------------------
async function take(which, file) {
  if (!file) return;
  try {
    given[which] = await decoded(file);
  } catch (error) {
    return say("", error.message);
  }
  named[which] = file.name || "picture";
  if (which === "reference") show($("style"), resized(given.reference, ...worked(given.reference, "own")));
  else show($("seen"), resized(given.source, ...worked(given.source, $("size").value)));
  say("");
  update();
}

function camera() {
  const video = $("video");
  let stream = null;
  const stop = () => {
    stream.getTracks().forEach((track) => track.stop());
    [stream, video.srcObject, video.hidden] = [null, null, true];
    $("camera").textContent = "Camera";
  };
  $("camera").addEventListener("click", async () => {
    if (stream) {
      given.source = drawn(video, video.videoWidth, video.videoHeight);
      named.source = "camera";
      stop();
      return update();
    }
    try {
      stream = await navigator.mediaDevices.getUserMedia({video: true});
    } catch {
      return say("", "There is no camera that this page may use.");
    }
    video.srcObject = stream;
    $("seen").hidden = true;
    video.hidden = false;
    $("camera").disabled = true;
    await video.play();
    $("camera").disabled = false;
    $("camera").textContent = "Take the picture";
  });
}

if (translates) {
  for (const which of ["source", "reference"])
    if ($(which)) $(which).addEventListener("change", (e) => take(which, e.target.files[0]));
  document.addEventListener("paste", (e) => take("source", e.clipboardData.files[0]));
  document.addEventListener("dragover", (e) => e.preventDefault());
  document.addEventListener("drop", (e) => {
    e.preventDefault();
    const style = e.target.closest && e.target.closest("[data-takes=reference]");
    take(style ? "reference" : "source", e.dataTransfer.files[0]);
  });
  camera();
} else
  $("next").addEventListener("click", () => {
    $("seed").value = (Number($("seed").value) + 1) % about.seeds || 0;
    update();
  });
for (const input of document.querySelectorAll(".controls input, .controls select"))
  input.addEventListener("input", () => {
    const output = input.parentElement.querySelector("output");
    if (output) output.value = Number(input.value).toFixed(2);
    if (input.dataset.set !== undefined) // the labels of one set at a time
      for (const other of document.querySelectorAll("[data-label]"))
        if (other.dataset.set !== input.dataset.set) other.checked = false;
    update();
  });
$("save").addEventListener("click", () =>
  $("made").toBlob((blob) => {
    const link = document.createElement("a");
    const stem = translates ? named.source.replace(/\.[^.]*$/, "") : `seed${$("seed").value}`;
    link.href = URL.createObjectURL(blob);
    link.download = `${stem}_${about.name}.png`;
    link.click();
    URL.revokeObjectURL(link.href);
  }));

// -- begin ------------------------------------------------------------------------------------
(async () => {
  const texts = {};
  for (const node of document.querySelectorAll("[data-packed]")) {
    texts[node.dataset.packed] = node.textContent.trim();
    node.remove();
  }
  say("Loading the model …");
  try {
    latents = await ask({texts});
  } catch (error) {
    return say("", `This browser cannot run the model (${error.message}).`);
  }
  say(translates ? "Ready." : "");
  busy = false;
  if (!translates || given.source) update();
})();
