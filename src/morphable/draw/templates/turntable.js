/* Draws the shape of a turntable (draw/turntable.py) with WebGL, and moves it with the sliders. */
"use strict";
(async () => {
  const figure = document.currentScript.previousElementSibling;
  const canvas = figure.querySelector("canvas");
  const sliders = [...figure.querySelectorAll("input")];
  const names = sliders.map((slider) => slider.previousElementSibling.textContent);
  const text = figure.querySelector("textarea");
  const view = JSON.parse(figure.dataset.view);
  const count = 3 * view.vertices;
  const gl = canvas.getContext("webgl", {antialias: true});
  if (!gl || !gl.getExtension("OES_element_index_uint") || !window.DecompressionStream) return;

  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  }
  const shapes = new Int16Array(await unpacked(figure.dataset.shapes));
  const weights = new Float32Array(await unpacked(figure.dataset.weights));
  const corners = new Uint32Array(await unpacked(figure.dataset.indices));
  const [meanUnit, ...units] = view.units;

  /* The lights and the clay of draw/render.py, without its creases. */
  const vertexShader = `
    attribute vec3 position, normal;
    uniform mat3 rotation;
    uniform vec3 scale;
    varying vec3 n;
    void main() {
      n = rotation * normal;
      gl_Position = vec4(rotation * position * scale, 1.0);
    }`;
  const fragmentShader = `
    precision mediump float;
    varying vec3 n;
    float lamp(vec3 m, vec3 to) { return max((dot(m, normalize(to)) + 0.25) / 1.25, 0.0); }
    void main() {
      vec3 m = normalize(n) * (gl_FrontFacing ? 1.0 : -1.0);
      vec3 light = vec3(0.155, 0.16, 0.175) * (1.0 + 0.45 * m.y)
        + lamp(m, vec3(-0.50, 0.62, 0.70)) * vec3(0.88, 0.85, 0.81)
        + lamp(m, vec3(0.80, 0.05, 0.55)) * vec3(0.16, 0.18, 0.21);
      vec3 clay = vec3(0.81, 0.745, 0.685) * (gl_FrontFacing ? vec3(1.0) : vec3(0.50, 0.47, 0.50));
      gl_FragColor = vec4(pow(pow(clay, vec3(2.2)) * light * 1.12, vec3(1.0 / 2.2)), 1.0);
    }`;
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertexShader], [gl.FRAGMENT_SHADER, fragmentShader]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  gl.enable(gl.DEPTH_TEST);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, corners, gl.STATIC_DRAW);
  const buffers = ["position", "normal"].map((name) => {
    const buffer = gl.createBuffer(), place = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 0, 0);
    return buffer;
  });

  /* The amounts of the components, as `Amounts.at` computes them. */
  const activations = {
    "": (x) => x,
    relu: (x) => Math.max(x, 0),
    silu: (x) => x / (1 + Math.exp(-x)),
  };

  function computed(values) {
    let read = 0;
    const product = (rows, input) => Array.from({length: rows}, () => {
      let sum = 0;
      for (const x of input) sum += weights[read++] * x;
      return sum;
    });
    const found = product(units.length, values);
    const add = (more) => more.forEach((amount, c) => { found[c] += amount; });
    if (view.bend) add(product(units.length, values.map((s) => s * s)));
    let hidden = values;
    for (const [rows, , activation] of view.layers) {
      const sums = product(rows, hidden);
      hidden = sums.map((sum) => activations[activation](sum + weights[read++]));
    }
    if (view.layers.length) add(hidden);
    return found;
  }
  const atRest = computed(sliders.map(() => 0));
  const amounts = (values) => computed(values).map((amount, c) => amount - atRest[c]);

  const position = new Float32Array(count), normal = new Float32Array(count);
  const exact = new Float64Array(count);

  function place(values) {
    for (let i = 0; i < count; i++) exact[i] = meanUnit * shapes[i];
    amounts(values).forEach((amount, c) => {
      if (amount === 0) return;
      const step = amount * units[c];
      for (let i = 0, j = count * (1 + c); i < count; i++, j++) exact[i] += step * shapes[j];
    });
    position.set(exact);
  }

  function reshape() {
    const values = sliders.map((slider) => Number(slider.value));
    values.forEach((s, k) => {
      const sign = s > 0 ? "+" : s < 0 ? "\u2212" : "";
      const unit = view.slider_units[k];
      sliders[k].nextElementSibling.textContent =
        unit ? `${sign}${Math.abs(s).toFixed(1)} ${unit}` : `${Math.round(100 * s)} %`;
    });
    if (text && document.activeElement !== text)
      text.value = sliders.map((slider, k) => `${names[k]}: ${slider.value}`).join("\n");
    place(values);
    normal.fill(0);
    for (let t = 0; t < corners.length; t += 3) {
      const [p, q, r] = [3 * corners[t], 3 * corners[t + 1], 3 * corners[t + 2]];
      const ux = position[q] - position[p], uy = position[q + 1] - position[p + 1];
      const uz = position[q + 2] - position[p + 2], vx = position[r] - position[p];
      const vy = position[r + 1] - position[p + 1], vz = position[r + 2] - position[p + 2];
      const nx = uy * vz - uz * vy, ny = uz * vx - ux * vz, nz = ux * vy - uy * vx;
      for (const at of [p, q, r]) {
        normal[at] += nx;
        normal[at + 1] += ny;
        normal[at + 2] += nz;
      }
    }
    [position, normal].forEach((values, number) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, buffers[number]);
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW);
    });
    draw();
  }

  /* Rows: right, up and towards the viewer. */
  let rotation = view.rotation;

  function turn(right, up) {
    const [c, s, d, e] = [Math.cos(right), Math.sin(right), Math.cos(up), Math.sin(up)];
    const step = [c, 0, s, e * s, d, -e * c, -d * s, e, d * c];
    rotation = step.map((_, i) => {
      const row = 3 * Math.floor(i / 3), column = i % 3;
      return [0, 1, 2].reduce((sum, k) => sum + step[row + k] * rotation[3 * k + column], 0);
    });
    draw();
  }

  const [width, height, reach] = view.frame;

  function draw() {
    const dots = window.devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * dots);
    canvas.height = Math.round(canvas.clientHeight * dots);
    const scale = Math.min(canvas.width / width, canvas.height / height);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    /* WebGL reads matrices column by column. */
    const columns = rotation.map((_, i) => rotation[3 * (i % 3) + Math.floor(i / 3)]);
    gl.uniformMatrix3fv(gl.getUniformLocation(program, "rotation"), false, columns);
    gl.uniform3f(gl.getUniformLocation(program, "scale"),
      2 * scale / canvas.width, 2 * scale / canvas.height, -0.3 / reach);
    gl.drawElements(gl.TRIANGLES, corners.length, gl.UNSIGNED_INT, 0);
  }

  const normalDraw = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
  const set = (value) => {
    sliders.forEach((slider, k) => { slider.value = value(k); });
    reshape();
  };
  const actions = {
    reset: () => set(() => 0),
    /* A slider in percent is a named expression, which random shapes do without. */
    random: () => set((k) => view.slider_units[k] ? normalDraw() : 0),
    front: () => { rotation = view.rotation; draw(); },
  };
  /* While the sliders are dragged, only the newest position of each frame is computed. */
  let waiting = false;
  const soon = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; reshape(); });
  };
  for (const slider of sliders) {
    slider.addEventListener("input", soon);
    slider.addEventListener("change", reshape);
  }
  if (text) text.addEventListener("input", () => {
    const stated = new Map(text.value.split("\n").map((line) => {
      const colon = line.lastIndexOf(":");
      return [line.slice(0, colon).trim(), Number(line.slice(colon + 1))];
    }));
    set((k) => Number.isFinite(stated.get(names[k])) ? stated.get(names[k]) : sliders[k].value);
  });
  for (const button of figure.querySelectorAll("button"))
    button.addEventListener("click", actions[button.dataset.do]);
  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    if (canvas.hasPointerCapture(event.pointerId)) turn(event.movementX / 150, event.movementY / 150);
  });
  canvas.addEventListener("keydown", (event) => {
    const steps = {ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1]};
    if (!steps[event.key]) return;
    event.preventDefault();
    turn(...steps[event.key]);
  });
  window.addEventListener("resize", draw);
  /* What tests and other scripts on the page read: the positions in mm, around the middle. */
  figure.positions = () => position;
  figure.classList.add("ready");
  reshape();
})();
