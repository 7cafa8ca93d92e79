"use strict";
(() => {
  const $ = (q, root = document) => root.querySelector(q);
  const $$ = (q, root = document) => [...root.querySelectorAll(q)];
  const DATA = JSON.parse($("#data").textContent);
  const panel = $(".panel"), tip = $(".tip");
  const tables = $$("table.results");
  const record = new Map();  // td -> its cell record
  const MINUS = "\u2212";
  const esc = s => String(s ?? "").replace(/[&<>"]/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})[c]);
  const num = (v, digits = 4) => v === null || v === undefined ? "" : String(+v.toPrecision(digits)).replace("-", MINUS);
  const say = text => { $("#said").textContent = text; };

  tables.forEach(t => $$("td.cell", t).forEach((td, i) => record.set(td, DATA.cells[t.dataset.artefact][i])));

  /* ---- filter: rows by labels, columns by dataset and metric; state is one object ---- */
  const filter = {dataset: "", backbone: "", method: "", metric: "", text: ""};
  const controls = $$("[data-filter]");
  function applyFilter() {
    const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
    const on = Object.values(filter).some(Boolean);
    for (const t of tables) {
      const columns = DATA.columns[t.dataset.artefact];
      const dead = columns.map(c => (filter.metric && c.k !== filter.metric) || (filter.dataset && c.d.length && !c.d.includes(filter.dataset)));
      let rows = 0;
      for (const tr of t.tBodies[0].rows) {
        const d = tr.dataset, label = [d.backbone, d.method, d.variant, tr.cells[0].textContent].join(" ").toLowerCase();
        const methods = columns.length && columns[0].m ? columns.map(c => c.m) : [d.method];
        const hide = (filter.backbone && d.backbone !== filter.backbone) || (filter.method && !methods.includes(filter.method)) || (filter.dataset && d.dataset && d.dataset !== filter.dataset) || !words.every(w => label.includes(w));
        tr.hidden = hide; rows += !hide;
        [...tr.cells].slice(1).forEach((td, j) => { td.hidden = dead[j] || !!(filter.method && columns[j].m && columns[j].m !== filter.method); });
      }
      const head = t.tHead.rows[t.tHead.rows.length - 1];
      [...head.cells].slice(1).forEach((th, j) => { th.hidden = t.tBodies[0].rows[0]?.cells[j + 1].hidden ?? dead[j]; });
      if (t.tHead.rows.length > 1) {
        let j = 0;
        [...t.tHead.rows[0].cells].slice(1).forEach(th => {
          th.dataset.span ||= th.colSpan;
          const live = [...head.cells].slice(1 + j, 1 + j + +th.dataset.span).filter(x => !x.hidden).length;
          th.hidden = !live; if (live) th.colSpan = live; j += +th.dataset.span;
        });
      }
      t.classList.toggle("filtered", on);
      const nothing = !rows || [...head.cells].slice(1).every(th => th.hidden);
      t.closest("section").hidden = on && nothing;
    }
    controls.forEach(c => c.classList.toggle("on", !!c.value));
    measure();
  }
  controls.forEach(c => c.addEventListener("input", () => { filter[c.dataset.filter] = c.value; applyFilter(); }));

  /* ---- sort: best first, worst first, the paper's order ---- */
  tables.forEach(t => {
    const original = [...t.tBodies[0].rows];
    const head = t.tHead.rows[t.tHead.rows.length - 1];
    [...head.cells].forEach((th, j) => $("button", th).addEventListener("click", () => {
      const was = th.getAttribute("aria-sort"), lower = th.textContent.includes("\u2193");
      const first = j === 0 || lower ? "ascending" : "descending", second = first === "ascending" ? "descending" : "ascending";
      const now = was === first ? second : was === second ? null : first;
      $$("[aria-sort]", t).forEach(x => x.removeAttribute("aria-sort"));
      let rows = original;
      if (now) {
        th.setAttribute("aria-sort", now);
        const value = tr => j ? (tr.cells[j].dataset.v === undefined ? NaN : +tr.cells[j].dataset.v) : tr.cells[0].textContent.trim();
        const sign = now === "ascending" ? 1 : -1;
        rows = [...original].sort((a, b) => {
          const x = value(a), y = value(b);
          if (!j) return sign * x.localeCompare(y);
          return isNaN(x) ? (isNaN(y) ? 0 : 1) : isNaN(y) ? -1 : sign * (x - y);
        });
      }
      t.classList.toggle("sorted", !!now);
      t.tBodies[0].append(...rows);
      say(now ? `sorted by ${th.textContent.trim()}, ${now}` : "in the paper's order");
    }));
  });

  /* ---- a cell's words ---- */
  const title = td => {
    const t = td.closest("table"), tr = td.parentElement, c = DATA.columns[t.dataset.artefact][td.cellIndex - 1];
    const row = [tr.dataset.backbone, c.m || tr.dataset.method, tr.dataset.variant].filter(Boolean).join(" + ");
    return {artefact: t.dataset.artefact, row, column: [td.dataset.g, c.l].filter(Boolean).join(" "), convention: c.c};
  };
  const runsOf = r => (r.c || []).flatMap(k => DATA.configs[k].runs.map(v => ({config: DATA.configs[k], ...Object.fromEntries(
    DATA.fields.map((f, i) => [f, DATA.levels[f] && v[i] !== null ? DATA.levels[f][v[i]] : v[i]]))})));

  function strip(r, width) {  // one dot per seed, our mean, the reported mean
    const values = (r.v || []).filter(v => v !== null);
    const marks = r.q === undefined ? values : [...values, r.q];
    if (values.length < 2) return "";
    const least = Math.min(...marks), most = Math.max(...marks), pad = (most - least || Math.abs(most) || 1) * .08, low = least - pad, high = most + pad;
    const x = v => 14 + (width - 28) * (v - low) / (high - low);
    const mean = values.reduce((a, b) => a + b) / values.length;
    const unit = 10 ** Math.floor(Math.log10((high - low) / 2)), size = [1, 2, 5, 10].map(k => k * unit).find(s => (high - low) / s <= 4.5);
    const ticks = []; for (let k = Math.ceil(low / size); k * size <= high; k++) ticks.push(k * size);
    const places = Math.max(0, -Math.floor(Math.log10(size) + 1e-9));
    return `<svg class="strip" width="${width}" height="40" role="img" aria-label="values of the seeds"><line x1="0" x2="${width}" y1="11" y2="11"/>` +
      ticks.map(v => `<line x1="${x(v)}" x2="${x(v)}" y1="20" y2="24"/><text x="${x(v)}" y="36" text-anchor="middle">${v.toFixed(places).replace("-", MINUS)}</text>`).join("") +
      `<line class="mean" x1="${x(mean)}" x2="${x(mean)}" y1="3" y2="19"/>` +
      (r.q === undefined ? "" : `<line class="rep" x1="${x(r.q)}" x2="${x(r.q)}" y1="1" y2="21"/>`) +
      values.map(v => `<circle cx="${x(v)}" cy="11" r="4"/>`).join("") + "</svg>" +
      `<p class="strip-key"><i class="dot"></i>a seed <i class="bar-mean"></i>mean${r.q === undefined ? "" : ' <i class="bar-rep"></i>reported'}</p>`;
  }
  const word = {d: "done", f: "failed", s: "stale", m: "not run"};
  const validation = (r, i) => r.u ? `<td>${r.u[i] === null || r.u[i] === undefined ? "" : r.u[i].toFixed(Math.abs(r.u[i]) < 2 ? 4 : 3).replace("-", MINUS)}</td>` : "";
  const seedRows = r => DATA.seeds[r.z || 0].map((s, i) => `<tr><td>${s}</td><td>${r.v && r.v[i] !== null ? r.v[i].toFixed(Math.abs(r.v[i]) < 2 ? 4 : 3).replace("-", MINUS) : (word[(r.s || "")[i]] === "done" ? "undefined" : word[(r.s || "")[i]] || "")}</td>${validation(r, i)}</tr>`).join("");

  /* ---- hover and focus: the seeds ---- */
  function showTip(td) {
    const r = record.get(td);
    if (!r || !r.c || !panel.hidden) return;
    const w = title(td);
    tip.innerHTML = `<b>${esc(w.row)}</b>, ${esc(w.column)}${strip(r, 200)}<table>${seedRows({...r, u: undefined})}</table>`;
    tip.hidden = false;
    const box = td.getBoundingClientRect(), t = tip.getBoundingClientRect();
    tip.style.left = Math.max(6, Math.min(box.left, innerWidth - t.width - 6)) + "px";
    tip.style.top = (box.bottom + t.height + 8 < innerHeight ? box.bottom + 6 : Math.max(6, box.top - t.height - 6)) + "px";
  }
  const hideTip = () => { tip.hidden = true; };
  const cellOf = e => e.target.closest && e.target.closest("td.cell");
  document.addEventListener("pointerover", e => {
    if (e.pointerType !== "mouse") return;
    const td = cellOf(e);
    td ? showTip(td) : hideTip();
  });
  document.addEventListener("focusin", e => { const td = cellOf(e); td ? showTip(td) : hideTip(); });
  addEventListener("scroll", hideTip, {passive: true, capture: true});

  /* ---- click, Enter or link: everything about a cell ---- */
  const pairs = rows => "<table>" + rows.filter(x => x[1] !== "" && x[1] !== undefined && x[1] !== null).map(x => `<tr><th>${x[0]}</th><td>${x[1]}</td></tr>`).join("") + "</table>";
  const against = (name, c) => !c ? "" : `<h3>Against ${name}</h3>` + pairs([
    ["difference", `${num(c[1])} [${num(c[2])}, ${num(c[3])}]`], ["pairs", c[0]], ["paired t-test", "p = " + num(c[4], 2)],
    ["Holm-adjusted", c[6] === null ? "not in the family" : "p = " + num(c[6], 2)], ["d<sub>z</sub>", num(c[5], 3)]]);
  const settings = r => r.c.map(k => {
    const rows = DATA.configs[k].set.map(i => DATA.settings[i]), given = rows.filter(s => s[2] === "--set"), rest = rows.filter(s => s[2] !== "--set");
    if (!rows.length) return "";
    const table = list => `<table class="settings">${list.map(s => `<tr><th>${esc(s[0])}</th><td class="mono">${esc(s[1])}</td><td class="soft">${esc(s[2])}</td></tr>`).join("")}</table>`;
    return (given.length ? `<h3>Other settings than the experiment's</h3>${table(given)}` : "") + `<details><summary>${given.length ? "the other" : "all"} ${rest.length} settings, and where they come from</summary>${table(rest)}</details>`;
  }).join("");
  const command = text => `<div class="cmd"><code>${esc(text)}</code><button type="button" class="plain" data-copy="${esc(text)}">copy</button></div>`;
  let open = null;
  function show(td, move = true) {
    const r = record.get(td), w = title(td), runs = runsOf(r);
    if (open) open.classList.remove("target");
    open = td; td.classList.add("target"); hideTip();
    if (!td.hasAttribute("tabindex")) td.tabIndex = -1;
    const clone = td.cloneNode(true); $$(".r, .sr, .n", clone).forEach(x => x.remove());
    const facts = ["status", "error", "commit", "code_hash", "data_sha256", "provenance", "device", "torch", "python", "wall_seconds", "parameters", "test_only"];
    panel.innerHTML = `<button type="button" class="plain close" aria-label="close">\u00d7</button>
      <p class="eyebrow">${esc(w.artefact)}, ${esc(w.column)}</p><h2>${esc(w.row)}</h2>${r.x ? `<p><span class="chip departs">other settings</span> ${esc(r.x)}</p>` : ""}${r.o ? `<p><span class="chip described">from the description</span> ${esc(DATA.why[r.o])}</p>` : ""}${r.y ? `<p><span class="chip unrun">not run here</span> ${esc(DATA.why[r.y])}</p>` : ""}
      <p class="soft">${esc(w.convention)}</p><p class="big">${clone.innerHTML || "not run here"}</p>${strip(r, 300)}
      ${r.c ? `<table class="seeds"><tr><th>seed</th><th>value</th>${r.u ? "<th>validation</th>" : ""}</tr>${seedRows(r)}</table>` : ""}
      <h3>Reported</h3>${pairs([["paper prints", esc(r.r || "no number here")], ["ours minus reported", num(r.d)], ["half-width", num(r.h)],
        ["difference / half-width", r.h ? num(r.d / r.h, 3) : ""], ["verdict", esc(r.j || "")], ["", esc(DATA.why[r.w] || "")]])}
      ${against("its default settings", r.e)}${against("the proposed method", r.p)}${against("the backbone alone", r.b)}
      ${r.c ? settings(r) : ""}
      ${r.c ? `<h3>Run it again</h3>${r.c.map(k => command(DATA.configs[k].cmd.replace("{artefact}", w.artefact))).join("")}` : ""}
      ${runs.map(x => `<details${runs.length < 2 ? " open" : ""}><summary>seed ${x.seed}: ${esc(x.status)}</summary>${pairs([["folder", `<span class="mono">${esc(x.config.path)}-s${x.seed}</span>`],
        ...facts.map(f => [f.replace("_", " "), f === "commit" && x.commit ? esc(x.commit) + (x.dirty ? " (modified)" : "") : f === "wall_seconds" && x[f] !== null ? num(x[f]) + " s" : x[f] === false ? "" : esc(x[f])])])}</details>`).join("")}
      ${r.c ? `<p class="soft small">config ${r.c.map(k => `<span class="mono">${esc(DATA.configs[k].id)}</span>`).join(", ")}</p>` : ""}`;
    panel.hidden = false;
    panel.scrollTop = 0;
    document.body.classList.add("opened");
    measure();
    history.replaceState(null, "", "#" + td.id);
    uncover(td);
    if (move) $(".close", panel).focus();
  }
  function uncover(td) {  // the drawer takes room: what was clicked stays in sight beside it
    const box = td.closest(".scroll"), stub = td.parentElement.cells[0].offsetWidth;
    const left = td.offsetLeft - stub - 4, right = td.offsetLeft + td.offsetWidth + 4 - box.clientWidth;
    if (box.scrollLeft > left) box.scrollLeft = left; else if (box.scrollLeft < right) box.scrollLeft = right;
    const top = td.getBoundingClientRect().top, low = innerWidth > 1000 ? innerHeight - 60 : innerHeight * .36;
    if (top < 90 || top > low) scrollBy({top: top - (innerWidth > 1000 ? innerHeight / 2 : innerHeight * .22), behavior: "instant"});
  }
  function close() {
    if (panel.hidden) return;
    panel.hidden = true; document.body.classList.remove("opened"); measure(); open.classList.remove("target"); open.focus({preventScroll: true}); open = null; hideTip();
    history.replaceState(null, "", location.pathname + location.search);
  }
  function follow() {
    const td = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!td) return;
    for (let d = td.closest("details"); d; d = d.parentElement.closest("details")) d.open = true;
    if (!td.classList.contains("cell")) return;
    show(td, false);
    td.scrollIntoView({block: innerWidth > 1000 ? "center" : "start", inline: "center", behavior: "instant"});
  }
  addEventListener("hashchange", follow);

  /* ---- mouse and keys ---- */
  function copy(text) {
    const done = () => say("copied"), slow = () => {
      const area = Object.assign(document.createElement("textarea"), {value: text});
      document.body.append(area); area.select(); document.execCommand("copy"); area.remove(); done();
    };
    navigator.clipboard ? navigator.clipboard.writeText(text).then(done, slow) : slow();
  }
  document.addEventListener("click", e => {
    const b = e.target.closest("button"), td = cellOf(e);
    if (b && b.dataset.copy) {
      copy(b.dataset.copy);
      const was = b.textContent; b.textContent = "copied"; setTimeout(() => { b.textContent = was; }, 1200);
    } else if (b && b.matches(".close")) close();
    else if (b && b.dataset.view) {
      document.body.dataset.view = b.dataset.view;
      $$(".views button").forEach(x => x.setAttribute("aria-pressed", x === b));
      measure();
    } else if (b && "themeSwitch" in b.dataset) {
      const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      document.documentElement.dataset.theme = dark ? "light" : "dark";
      try { localStorage.setItem("bench-theme", document.documentElement.dataset.theme); } catch (_) { /* a file may have no storage */ }
    } else if (b && b.dataset.toggle) {
      b.setAttribute("aria-expanded", $("." + b.dataset.toggle).classList.toggle("open"));
    } else if (td) show(td);
    else if (!e.target.closest(".panel") && !e.target.closest("a")) close();
  });
  tables.forEach(t => { const td = $("td.cell", t); if (td) td.tabIndex = 0; });
  const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
  document.addEventListener("keydown", e => {
    if (e.key === "Escape") { hideTip(); close(); return; }
    const td = e.target.matches && e.target.matches("td.cell") ? e.target : null;
    if (!td) return;
    if (e.key === "Enter" || e.key === " ") { e.preventDefault(); show(td); return; }
    if (!step[e.key]) return;
    e.preventDefault();
    const live = [...td.closest("tbody").rows].filter(tr => !tr.hidden), [dy, dx] = step[e.key];
    const across = [...td.parentElement.cells].filter(x => !x.hidden && x.matches("td"));
    const next = dy ? live[live.indexOf(td.parentElement) + dy]?.cells[td.cellIndex] : across[across.indexOf(td) + dx];
    if (next && next.matches("td.cell")) {
      $$("[tabindex='0'].cell", td.closest("table")).forEach(x => { x.tabIndex = -1; });
      next.tabIndex = 0; next.focus();
    }
  });

  /* ---- tables that fit stick their header to the page, others scroll in their own box ---- */
  function measure() {
    $$(".scroll").forEach(s => {
      s.classList.remove("fits");
      const t = s.firstElementChild;
      s.classList.toggle("fits", t.scrollWidth <= s.clientWidth + 1);
    });
  }
  addEventListener("resize", measure);
  document.addEventListener("toggle", e => { if (e.target.open) measure(); }, true);
  const bar = $(".bar");
  new ResizeObserver(() => document.documentElement.style.setProperty("--bar", bar.offsetHeight + "px")).observe(bar);

  /* ---- contents: where we are ---- */
  const links = new Map($$(".toc a").map(a => [a.hash.slice(1), a]));
  const seen = new IntersectionObserver(entries => entries.forEach(e => {
    const a = links.get(e.target.id);
    if (a && e.isIntersecting) { $$(".toc a[aria-current]").forEach(x => x.removeAttribute("aria-current")); a.setAttribute("aria-current", "true"); }
  }), {rootMargin: "-20% 0px -70% 0px"});
  $$("main > section").forEach(s => seen.observe(s));

  addEventListener("beforeprint", () => $$("details.claim-paper").forEach(d => { d.open = true; }));
  measure();
  follow();
})();
