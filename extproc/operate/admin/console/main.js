// The console. Each view is a file in views/; page.js asks and draws.
import {startLogin} from "./api.js";
import {begin, draw, refresh} from "./page.js";
import {audit} from "./views/audit.js";
import {budgets} from "./views/budgets.js";
import {cache} from "./views/cache.js";
import {compare} from "./views/compare.js";
import {explain} from "./views/explain.js";
import {keys} from "./views/keys.js";
import {models} from "./views/models.js";
import {overview} from "./views/overview.js";
import {playground} from "./views/playground.js";
import {requests} from "./views/requests.js";
import {runs} from "./views/runs.js";
import {settings} from "./views/settings.js";
import {tools} from "./views/tools.js";

startLogin(() => { draw(); refresh(); });
begin({overview, requests, runs, compare, budgets, models, tools, cache, keys, explain, playground, settings, audit});
