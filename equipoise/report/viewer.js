// Ball-and-stick film on a canvas, with nothing to load: drag turns, the slider scrubs, space plays.
// `data` comes from molecule.py (viewer_frames).
function playMolecule(root, data) {
  const canvas = root.querySelector("canvas");
  const button = root.querySelector("button");
  const slider = root.querySelector("input");
  const label = root.querySelector("output");
  const context = canvas.getContext("2d");
  const frames = data.positions.length;
  const atoms = data.symbols.length;
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;

  let rotation = multiply(about("x", -0.5), about("y", 0.6));
  let frame = 0;
  let playing = !calm;
  let last = 0;
  const rate = Math.min(30, Math.max(8, frames / 10)); // frames per second: some ten seconds a round

  slider.max = frames - 1;

  // The farthest any atom ever gets from the origin sets the scale, so that nothing leaves the picture.
  let reach = 0;
  for (const positions of data.positions) {
    for (let i = 0; i < atoms; i++) {
      reach = Math.max(reach, Math.hypot(positions[3 * i], positions[3 * i + 1], positions[3 * i + 2]));
    }
  }
  const box = data.cell ? corners(data.cell, data.origin) : null;
  if (box) for (const corner of box) reach = Math.max(reach, Math.hypot(...corner));

  function about(axis, angle) {
    const c = Math.cos(angle), s = Math.sin(angle);
    return axis === "x" ? [1, 0, 0, 0, c, -s, 0, s, c] : [c, 0, s, 0, 1, 0, -s, 0, c];
  }
  function multiply(a, b) {
    const product = [];
    for (let i = 0; i < 3; i++) for (let j = 0; j < 3; j++) {
      product.push(a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j]);
    }
    return product;
  }
  function corners(cell, origin) {
    const all = [];
    for (let k = 0; k < 8; k++) {
      all.push([0, 1, 2].map((d) => origin[d] + (k & 1) * cell[0][d] + ((k >> 1) & 1) * cell[1][d] + (k >> 2) * cell[2][d]));
    }
    return all;
  }
  function shade(hex, factor) {
    const n = parseInt(hex.slice(1), 16);
    const part = (shift) => Math.max(0, Math.min(255, Math.round(((n >> shift) & 255) * factor)));
    return `rgb(${part(16)},${part(8)},${part(0)})`;
  }

  function draw() {
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const eye = 4 * (reach + 1); // mild perspective
    const scale = (0.46 * Math.min(width, height)) / (reach + 0.6);
    const r = rotation;
    const project = (x, y, z) => {
      const depth = r[6] * x + r[7] * y + r[8] * z;
      const near = eye / (eye - depth);
      return {
        x: width / 2 + scale * near * (r[0] * x + r[1] * y + r[2] * z),
        y: height / 2 - scale * near * (r[3] * x + r[4] * y + r[5] * z),
        z: depth,
        near,
      };
    };
    const positions = data.positions[frame];
    const points = [];
    for (let i = 0; i < atoms; i++) points.push(project(positions[3 * i], positions[3 * i + 1], positions[3 * i + 2]));

    if (box) {
      const seen = box.map((corner) => project(...corner));
      context.strokeStyle = "#b8c2cc";
      context.lineWidth = 1;
      context.beginPath();
      for (let a = 0; a < 8; a++) for (const bit of [1, 2, 4]) {
        if (!(a & bit)) { context.moveTo(seen[a].x, seen[a].y); context.lineTo(seen[a | bit].x, seen[a | bit].y); }
      }
      context.stroke();
    }

    // Painter's algorithm: everything with its depth, the farthest first.
    const things = points.map((point, i) => ({ depth: point.z, paint: () => ball(point, i) }));
    for (let i = 0; i < atoms; i++) for (let j = i + 1; j < atoms; j++) {
      const dx = positions[3 * i] - positions[3 * j];
      const dy = positions[3 * i + 1] - positions[3 * j + 1];
      const dz = positions[3 * i + 2] - positions[3 * j + 2];
      if (Math.hypot(dx, dy, dz) > data.bond * (data.radii[i] + data.radii[j])) continue;
      const middle = { x: (points[i].x + points[j].x) / 2, y: (points[i].y + points[j].y) / 2, z: (points[i].z + points[j].z) / 2 };
      for (const atom of [i, j]) {
        things.push({ depth: (points[atom].z + middle.z) / 2, paint: () => stick(points[atom], middle, atom) });
      }
    }
    things.sort((a, b) => a.depth - b.depth).forEach((thing) => thing.paint());
    label.textContent = data.labels[frame];
    slider.value = frame;

    function ball(point, i) {
      const size = data.radii[i] * 0.42 * scale * point.near;
      const light = context.createRadialGradient(point.x - size * 0.35, point.y - size * 0.4, size * 0.1, point.x, point.y, size);
      light.addColorStop(0, shade(data.colours[i], 1.45));
      light.addColorStop(0.55, data.colours[i]);
      light.addColorStop(1, shade(data.colours[i], 0.62));
      context.beginPath();
      context.arc(point.x, point.y, size, 0, 2 * Math.PI);
      context.fillStyle = light;
      context.fill();
    }
    function stick(from, to, i) {
      context.beginPath();
      context.moveTo(from.x, from.y);
      context.lineTo(to.x, to.y);
      context.lineWidth = 0.13 * scale * from.near;
      context.lineCap = "butt";
      context.strokeStyle = shade(data.colours[i], 0.82);
      context.stroke();
    }
  }

  function tick(now) {
    if (playing && now - last > 1000 / rate) {
      frame = (frame + 1) % frames;
      last = now;
      draw();
    }
    requestAnimationFrame(tick);
  }
  function setPlaying(value) {
    playing = value;
    button.textContent = playing ? "Pause" : "Play";
  }

  let held = null;
  canvas.addEventListener("pointerdown", (event) => {
    held = [event.clientX, event.clientY];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return;
    const turn = multiply(about("y", (event.clientX - held[0]) * 0.01), about("x", (event.clientY - held[1]) * 0.01));
    rotation = multiply(turn, rotation);
    held = [event.clientX, event.clientY];
    draw();
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { held = null; });
  canvas.addEventListener("keydown", (event) => {
    if (event.key === " ") { event.preventDefault(); setPlaying(!playing); return; }
    const turns = { ArrowLeft: ["y", -0.12], ArrowRight: ["y", 0.12], ArrowUp: ["x", -0.12], ArrowDown: ["x", 0.12] };
    if (turns[event.key]) { event.preventDefault(); rotation = multiply(about(...turns[event.key]), rotation); draw(); }
  });
  button.addEventListener("click", () => setPlaying(!playing));
  slider.addEventListener("input", () => { setPlaying(false); frame = Number(slider.value); draw(); });
  window.addEventListener("resize", draw);

  setPlaying(playing);
  draw();
  requestAnimationFrame(tick);
}
