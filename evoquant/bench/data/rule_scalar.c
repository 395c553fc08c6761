/* The yardstick of `evoquant bench rules`: rules scored by a plain compiled loop, genome after genome, layer after
   layer. Compiled with -O3 -march=native. */
#include <stdint.h>

/* Arguments: n genomes of `genes` columns (types flags, protected width, edges, edge width, rungs × (signal, above,
   width), otherwise); units with their type's column (-1 for none), position, signals as [signal][unit], and losses
   and costs as [width][unit]. */
void rule_sums(int64_t n, int64_t types, int64_t rungs, const double *population, int64_t units,
               const int32_t *type, const double *position, const double *signals, const int64_t *loss,
               const int64_t *cost, int64_t *losses, int64_t *costs)
{
    const int64_t genes = types + 3 + 3 * rungs + 1;
    for (int64_t g = 0; g < n; g++) {
        const double *genome = population + g * genes;
        const double *ladder = genome + types + 3;
        const double edges = genome[types + 1];
        const int64_t protected_width = (int64_t)genome[types];
        const int64_t edge_width = (int64_t)genome[types + 2];
        const int64_t otherwise = (int64_t)genome[genes - 1];
        int64_t total_loss = 0, total_cost = 0;
        for (int64_t u = 0; u < units; u++) {
            int64_t width = otherwise;
            if (type[u] >= 0 && genome[type[u]] > 0) {
                width = protected_width;
            } else if (edges > 0 && (position[u] < edges || position[u] > 1.0 - edges)) {
                width = edge_width;
            } else {
                for (int64_t r = 0; r < rungs; r++) {
                    const int64_t signal = (int64_t)ladder[3 * r];
                    if (signal > 0 && signals[(signal - 1) * units + u] > ladder[3 * r + 1]) {
                        width = (int64_t)ladder[3 * r + 2];
                        break;
                    }
                }
            }
            total_loss += loss[width * units + u];
            total_cost += cost[width * units + u];
        }
        losses[g] = total_loss;
        costs[g] = total_cost;
    }
}

/* The same, with each genome's rungs made ready before its layers are looked at. At most MOST_RUNGS of them. */
#define MOST_RUNGS 16
void rule_sums_ready(int64_t n, int64_t types, int64_t rungs, const double *population, int64_t units,
                     const int32_t *type, const double *position, const double *signals, const int64_t *loss,
                     const int64_t *cost, int64_t *losses, int64_t *costs)
{
    const int64_t genes = types + 3 + 3 * rungs + 1;
    for (int64_t g = 0; g < n; g++) {
        const double *genome = population + g * genes;
        const double *ladder = genome + types + 3;
        const double edges = genome[types + 1];
        const int64_t protected_width = (int64_t)genome[types];
        const int64_t edge_width = (int64_t)genome[types + 2];
        const int64_t otherwise = (int64_t)genome[genes - 1];
        const double *values[MOST_RUNGS];
        double above[MOST_RUNGS];
        int64_t wanted[MOST_RUNGS], present = 0;
        for (int64_t r = 0; r < rungs && r < MOST_RUNGS; r++) {
            const int64_t signal = (int64_t)ladder[3 * r];
            if (signal > 0) {
                values[present] = signals + (signal - 1) * units;
                above[present] = ladder[3 * r + 1];
                wanted[present++] = (int64_t)ladder[3 * r + 2];
            }
        }
        int64_t total_loss = 0, total_cost = 0;
        for (int64_t u = 0; u < units; u++) {
            int64_t width = otherwise;
            if (type[u] >= 0 && genome[type[u]] > 0) {
                width = protected_width;
            } else if (edges > 0 && (position[u] < edges || position[u] > 1.0 - edges)) {
                width = edge_width;
            } else {
                for (int64_t r = 0; r < present; r++) {
                    if (values[r][u] > above[r]) {
                        width = wanted[r];
                        break;
                    }
                }
            }
            total_loss += loss[width * units + u];
            total_cost += cost[width * units + u];
        }
        losses[g] = total_loss;
        costs[g] = total_cost;
    }
}
