// SPDX-License-Identifier: Apache-2.0
// The fuzz targets in the ordinary run: the kept corpus, then mutations of it from fixed seeds.
#include "tests/fuzz/mutator.h"
#include "tests/fuzz/wire_targets.h"

#include <gtest/gtest.h>

namespace colo::fuzz {
namespace {

class HostileInput : public testing::TestWithParam<Target> {
protected:
    std::vector<Bytes> corpus() const { return corpus_of(std::filesystem::path(COLO_FUZZ_CORPUS) / GetParam().name); }
};

TEST_P(HostileInput, CorpusAndMutations)
{
    const auto corpus = this->corpus();
    ASSERT_FALSE(corpus.empty());
    for (const Bytes& input : corpus) GetParam().run(input);
    Mutator mutator(99);
    for (int round = 0; round < 3000; ++round)
        for (std::size_t i = 0; i < corpus.size(); ++i)
            GetParam().run(mutator.mutate(corpus[i], corpus[(i * 7 + static_cast<std::size_t>(round)) % corpus.size()]));
}

TEST_P(HostileInput, EveryPrefixOfTheCorpus)
{
    for (const Bytes& input : corpus())
        for (std::size_t n = 0; n < input.size(); n += n < 300 ? 1 : 41) GetParam().run(ByteView(input).first(n));
}

INSTANTIATE_TEST_SUITE_P(Targets, HostileInput, testing::ValuesIn(kWireTargets),
                         [](const auto& p) { return std::string(p.param.name); });

}  // namespace
}  // namespace colo::fuzz
