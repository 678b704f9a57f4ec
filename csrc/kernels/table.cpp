// Fills the table of the instruction set that this compilation is for.
#include "kernels/declarations.h"

#define MOCO_STRING(name) #name
#define MOCO_NAME(isa) MOCO_STRING(isa)

namespace moco::MOCO_ISA {

const KernelTable table = {
    .isa = MOCO_NAME(MOCO_ISA),
    .linear_score = linear_score,
    .mean_pool = mean_pool,
    .copy_runs = copy_runs,
};

}  // namespace moco::MOCO_ISA
